"""Does bad things to a real server; ``python -m tests.chaos`` runs every scenario."""
