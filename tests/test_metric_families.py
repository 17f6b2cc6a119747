"""Metrics that outlive the process that made them."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Stands in for Triton's own module, in whose newer releases a family that is freed takes the metrics of all versions
# with it.
PROCESS = """
import gc, sys, types

class MetricFamily:
    COUNTER, HISTOGRAM = "counter", "histogram"

    def __init__(self, name, description, kind):
        self.name = name
        print("made", name, kind, flush=True)

    def Metric(self, **_):
        return object()

    def __del__(self):
        print("freed", self.name, flush=True)

sys.modules["triton_python_backend_utils"] = types.SimpleNamespace(MetricFamily=MetricFamily)
from inference_export.template import load_served_module
metrics = load_served_module({model!r}, "metrics").Metrics(*{arguments!r})
sys.modules.pop("triton_python_backend_utils")
del metrics
gc.collect()
"""
FAMILIES = {
    "preprocess": {
        "classify_undecodable_images_total counter",
        "classify_refused_requests_total counter",
        "classify_decode_seconds histogram",
        "classify_image_bytes histogram",
        "classify_rotated_images_total counter",
        "classify_access_log_lost_lines_total counter",
    },
    "cluster_head": {
        "classify_images_total counter",
        "classify_probability histogram",
        "classify_not_finite_images_total counter",
        "classify_access_log_lost_lines_total counter",
    },
}


@pytest.mark.parametrize(("model", "arguments"), [("preprocess", ()), ("cluster_head", ("clustering",))])
def test_no_family_is_freed_when_its_model_is_deleted_nor_at_the_end_of_the_process(
    model: str, arguments: tuple[str, ...]
) -> None:
    program = PROCESS.format(model=model, arguments=arguments)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert set(done.stdout.splitlines()) == {f"made {family}" for family in FAMILIES[model]}
