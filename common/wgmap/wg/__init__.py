"""WireGuard: keys and devices (kernel and userspace backends behind one interface)."""
