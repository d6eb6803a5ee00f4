"""A whole cluster of the replicated log in virtual time, from one seed."""
