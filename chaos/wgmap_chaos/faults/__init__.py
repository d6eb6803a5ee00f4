"""Faults: how each is done, how one sees that it took effect, and how it is healed."""
