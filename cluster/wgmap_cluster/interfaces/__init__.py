"""A server's WireGuard interfaces: set up by differences, peers as the replicated tables say."""
