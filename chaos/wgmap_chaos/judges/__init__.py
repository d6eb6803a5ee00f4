"""Judges: from what was recorded, which promises were broken. Pure."""
