"""The pure state machine: commands in, rows and changes out; no clock, no I/O."""
