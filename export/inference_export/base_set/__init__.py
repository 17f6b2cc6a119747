"""Base images in, a base set out; without PyTorch or ONNX."""
