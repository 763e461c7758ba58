"""The process of a command: signals, failures and output."""
