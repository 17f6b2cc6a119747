"""Finds, prepares, starts and administers the real tritonserver."""
