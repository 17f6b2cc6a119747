"""``base-set forget``: removes images for good, and searches for what is left of them."""
