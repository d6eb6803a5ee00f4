"""Load: light clients, agents, operators, data flows; all of it is recorded."""
