"""A deterministic simulation of agents: virtual time, WireGuard's handshakes, map servers."""
