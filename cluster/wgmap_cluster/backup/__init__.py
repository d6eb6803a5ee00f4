"""Backups of the replicated state: their bytes, sealed keys, and what a restore makes of them."""
