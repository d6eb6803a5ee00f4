"""The LISP control plane wire format (RFC 9301, RFC 8060): pure, no I/O."""
