"""Servers that die, measured: what a first contact feels of it."""
