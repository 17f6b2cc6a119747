"""A network of another architecture, with all that ``--network`` needs to serve it."""
