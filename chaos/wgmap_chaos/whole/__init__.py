"""Chaos over the whole product: a lab, load, faults, and a verdict."""
