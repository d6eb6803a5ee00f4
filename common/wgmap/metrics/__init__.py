"""Numbers for Prometheus, and whether a daemon is well."""
