"""Trained resources: labels, checkpoints and logs, read without running any code in them."""
