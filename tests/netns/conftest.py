"""Fixtures of the tests that need network namespaces."""

from support.lab import lab

__all__ = ["lab"]
