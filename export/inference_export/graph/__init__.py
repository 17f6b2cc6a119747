"""The network as an ONNX graph: exporting it, comparing it with PyTorch, and making it int8 or fp16."""
