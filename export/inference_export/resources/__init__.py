"""Reading trained resources (labels, checkpoints and logs) without running code in them."""
