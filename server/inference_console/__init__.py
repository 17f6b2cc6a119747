"""A web application for people in front of a running server: try an image, see the evidence, correct the base set."""
