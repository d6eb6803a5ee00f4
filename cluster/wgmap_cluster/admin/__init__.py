"""The admin API: HTTP with JSON on a unix socket, which only root and its like can open."""
