"""The command ``reload-repository``."""
