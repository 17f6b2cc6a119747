"""A network of another architecture, which ``--network`` can serve."""
