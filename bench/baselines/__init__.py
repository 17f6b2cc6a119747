"""What a user would pick instead, each a server of its own with the same weights."""
