"""What each command of `vmae` takes from the command line, and what it prints."""
