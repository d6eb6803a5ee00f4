"""The replica process: owns the log, registrations, interfaces and the admin API."""
