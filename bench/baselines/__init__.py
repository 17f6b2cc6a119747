"""Servers that a user might choose instead, with the same weights."""
