"""The runner: executes what the engine decided (TUN, netlink, WireGuard, UDP)."""
