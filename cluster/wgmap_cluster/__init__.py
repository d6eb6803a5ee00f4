"""The map server: a replicated database of peers that speaks LISP."""
