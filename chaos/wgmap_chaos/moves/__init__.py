"""Moves of endpoints, measured: how long a flow is silent, beside WireGuard alone."""
