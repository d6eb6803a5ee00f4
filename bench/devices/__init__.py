"""Many peers on one WireGuard device, the kernel's and the one in user space."""
