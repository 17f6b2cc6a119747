"""The real tritonserver: found, prepared, started and administered."""
