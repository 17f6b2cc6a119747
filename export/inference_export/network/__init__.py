"""The network that is exported, built-in or the user's own, and its preprocessing."""
