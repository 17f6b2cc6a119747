"""Runs a real tritonserver on an exported model repository."""
