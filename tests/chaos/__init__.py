"""The bad things that happen to a server, really done to a real one; ``python -m tests.chaos`` does them all."""
