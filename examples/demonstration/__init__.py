"""The demonstration: real images, a short honest training, export, a real server, and held-out accuracy through it."""
