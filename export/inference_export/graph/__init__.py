"""The network as an ONNX graph: exported, compared with PyTorch, and in fewer bits."""
