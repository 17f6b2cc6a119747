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

# Set before anything imports ONNX Runtime, which would otherwise send usage data to its maker and keep an identifier of
# this machine. A server started from here inherits the variable. Set it to 0 to allow it.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_MODULES = {
    "ExportError": "errors",
    "ExportOptions": "export_options",
    "Summary": "summary",
    "export_repository": "exporting",
}


def __getattr__(name: str) -> Any:
    # Imported when first used: most users of this package, such as the server, export nothing.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
