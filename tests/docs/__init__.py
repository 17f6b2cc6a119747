"""What README and docs promise: that their commands run, their links lead somewhere, and their reference is current."""
