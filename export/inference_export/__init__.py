"""Export of trained resources to a Triton model repository."""
