"""The demonstration: trains on real images, exports, starts a real server, and measures held-out accuracy."""
