"""The pure engine: events and the time in, actions out."""
