"""Chaos: labs in network namespaces, faults, and judges."""
