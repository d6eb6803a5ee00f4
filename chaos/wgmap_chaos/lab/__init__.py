"""The lab: map servers and agents in namespaces over real WireGuard."""
