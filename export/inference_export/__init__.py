"""Export of trained resources to a Triton model repository."""

import os

# Before anything imports ONNX Runtime: it would send usage data to its maker, and keep an identifier of this machine. A
# server that is started from here inherits it. Whoever wants it sets the variable to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
