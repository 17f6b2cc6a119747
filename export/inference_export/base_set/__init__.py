"""The base set: base images read, embedded, written and analyzed, without PyTorch or ONNX."""
