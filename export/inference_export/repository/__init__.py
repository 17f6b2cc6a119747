"""A model repository: configurations and versions, staged, published and read back."""
