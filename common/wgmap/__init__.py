"""What map servers and agents share: the wire format, WireGuard devices, routes, configuration."""

__version__ = "0.1.0"
