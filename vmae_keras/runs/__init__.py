"""The run folder: its files, their formats and names."""
