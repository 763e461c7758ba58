"""The process of a command: its signals, its failures, and what it prints."""
