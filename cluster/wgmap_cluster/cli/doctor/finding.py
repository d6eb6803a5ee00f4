"""What a look at something brings."""

from enum import IntEnum
from typing import NamedTuple


class Verdict(IntEnum):
    """How bad it is."""

    OK = 0
    WARN = 1  # it works, and may not for long
    FAIL = 2


class Finding(NamedTuple):
    """One thing that was looked at; ``advice``: what to do, where something is to be done."""

    check: str
    verdict: Verdict
    detail: str
    advice: str = ""


def fine(check: str, detail: str) -> Finding:
    """Say that it is well."""
    return Finding(check, Verdict.OK, detail)


def warned(check: str, detail: str, advice: str) -> Finding:
    """Say that it may not be for long."""
    return Finding(check, Verdict.WARN, detail, advice)


def failed(check: str, detail: str, advice: str) -> Finding:
    """Say that it is not."""
    return Finding(check, Verdict.FAIL, detail, advice)
