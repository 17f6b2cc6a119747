"""Watching over a running tritonserver, and replacing what fails."""
