"""The model repository: its configurations and versions, written, published and read."""
