"""The report of an evaluation: one page with text and plots, and the text for the terminal."""
