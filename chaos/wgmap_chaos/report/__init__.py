"""What a run looked like: figures, plots, a page and a summary."""
