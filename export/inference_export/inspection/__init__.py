"""The command ``inspect-repository``."""
