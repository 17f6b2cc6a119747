"""Complete networks, .pt2 and .onnx: reading them without running code of theirs, and running what they compute."""
