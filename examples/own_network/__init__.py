"""A network of another architecture: what is needed to serve it with ``--network``."""
