"""The network as an ONNX graph: export, comparison with PyTorch, and conversion to int8 or fp16."""
