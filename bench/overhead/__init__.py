"""What serving adds to decoding and the network, and where: in our Python, in Triton around it, or elsewhere."""
