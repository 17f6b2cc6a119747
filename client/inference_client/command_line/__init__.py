"""What every command of ours has: options, progress, messages about extras, results on standard output."""
