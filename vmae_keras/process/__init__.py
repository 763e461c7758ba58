"""The process of a command: signals, failures, output and files."""
