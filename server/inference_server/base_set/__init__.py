"""The command ``base-set``: changes the base set of a repository, and of the server that runs on it."""
