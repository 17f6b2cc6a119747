"""Export of trained resources to a Triton model repository.

``from inference_export import ExportOptions, export_repository`` is the Python API; the command ``export-repository``
does the same.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inference_export.errors import ExportError
    from inference_export.export_options import ExportOptions
    from inference_export.exporting import export_repository
    from inference_export.summary import Summary

__all__ = ["ExportError", "ExportOptions", "Summary", "export_repository"]

# ONNX Runtime would otherwise send usage data to its maker, and keep an identifier of this machine. Set before anything
# imports it; a server that this process starts inherits the variable. Set it to 0 to allow telemetry.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_MODULES = {
    "ExportError": "errors",
    "ExportOptions": "export_options",
    "Summary": "summary",
    "export_repository": "exporting",
}


def __getattr__(name: str) -> Any:
    # Imported at the first use: the server and most other users of this package export nothing.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
