"""Coverage-guided fuzzing of the preprocessing; ``corpus`` holds what it found to reach new code."""
