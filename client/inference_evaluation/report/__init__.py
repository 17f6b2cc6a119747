"""The report of an evaluation: one page with text and plots, and the text that the terminal shows."""
