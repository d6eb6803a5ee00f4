"""A steady stream of lookups beside an echo, and what a server is kept busy with meanwhile."""
