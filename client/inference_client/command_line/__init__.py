"""Parts that all commands share: options, progress, text layout, printing, and the message for a missing extra."""
