"""What all commands share: options and their types, progress, text layout, printing, and the missing-extra message."""
