"""Options, output and folders that several commands share."""
