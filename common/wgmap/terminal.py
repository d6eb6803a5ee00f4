"""How programs write for people: colours and keys, by the variables of WireGuard's own tools."""

import os
import re
import sys

_ESCAPE = re.compile(r"\033\[[0-9;]*m")
HIDDEN = "(hidden)"


def coloured() -> bool:
    """Follow WG_COLOR_MODE: ``always``, ``never``, else whether a terminal reads."""
    mode = os.environ.get("WG_COLOR_MODE", "auto")
    return mode == "always" or (mode != "never" and sys.stdout.isatty())


def bold(text: str) -> str:
    """Write in bold."""
    return _in("1", text)


def good(text: str) -> str:
    """Write as what is well."""
    return _in("32", text)


def doubtful(text: str) -> str:
    """Write as what one may want to look at."""
    return _in("33", text)


def bad(text: str) -> str:
    """Write as what one must look at."""
    return _in("1;31", text)


def faint(text: str) -> str:
    """Write as what is beside the point."""
    return _in("2", text)


def key(text: str | None) -> str | None:
    """Write a key, or that it is hidden: WG_HIDE_KEYS=always."""
    return HIDDEN if text and os.environ.get("WG_HIDE_KEYS") == "always" else text


def width(text: str) -> int:
    """Return how many columns a text takes."""
    return len(_ESCAPE.sub("", text))


def pad(text: str, columns: int) -> str:
    """Fill up with spaces to so many columns."""
    return text + " " * (columns - width(text))


def _in(code: str, text: str) -> str:
    return f"\033[{code}m{text}\033[0m" if coloured() else text
