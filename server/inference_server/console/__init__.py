"""The console beside a running ``inference-server``: started with it, kept running, and ended with it."""
