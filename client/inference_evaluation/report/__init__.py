"""The report of an evaluation: one page with its plots and words."""
