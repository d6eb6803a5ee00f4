"""The agent: the daemon on every peer."""
