"""What was done, seen and measured in a run, as it is written to a file."""
