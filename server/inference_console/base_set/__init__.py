"""The base set in the console: what is stored, thumbnails, and changes, which are commands of ``base-set``."""
