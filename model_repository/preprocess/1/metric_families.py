"""Families of metrics that outlive the version that makes them."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import triton_python_backend_utils as pb_utils

if TYPE_CHECKING:
    from collections.abc import Mapping


def lasting_families(descriptions: Mapping[str, str]) -> list[Any]:
    """Make families of metrics that live as long as Triton.

    All versions of a model add to the same metrics. From 26.09 on, a process deletes its families when its version is
    unloaded. Triton then frees the metrics under the other versions, and dies of their next observation (issue 8663 of
    triton-inference-server/server). So the families here are never freed, and a family keeps its metrics.

    Args:
        descriptions: Name and description of each family. Names of counters end in ``_total``; the others are
            histograms.

    Returns:
        The families, in the same order.
    """
    family = pb_utils.MetricFamily
    families = [
        family(name, description, family.COUNTER if name.endswith("_total") else family.HISTOGRAM)
        for name, description in descriptions.items()
    ]
    for each in families:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(each))
    return families
