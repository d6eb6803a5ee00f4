"""First contact under faults, over real WireGuard: the faults, one contact, the matrix."""
