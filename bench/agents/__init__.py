"""Parts of the bench of one agent with many data peers."""
