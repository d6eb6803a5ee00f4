"""Checks of single fields of a command: each takes what msgpack gave and returns the value."""

import ipaddress
import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from wgmap.addresses import prefix_from_bytes

Check: TypeAlias = Callable[[Any], Any]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_MAX_CLOCK = 2.0**52


class FieldError(ValueError):
    """A field has the wrong type, size or value."""


def _expect(good: bool, what: str, value: object) -> None:
    if not good:
        raise FieldError(f"expected {what}, got {value!r:.60}")


def integer(highest: int, lowest: int = 0) -> Check:
    """Check for an integer between the two, both included."""

    def check(value: Any) -> int:
        good = type(value) is int and lowest <= value <= highest
        _expect(good, f"an integer {lowest}-{highest}", value)
        return int(value)

    return check


def text(most: int) -> Check:
    """Check for text of at most so many characters."""

    def check(value: Any) -> str:
        _expect(isinstance(value, str) and len(value) <= most, f"text up to {most}", value)
        return str(value)

    return check


def octets(fewest: int, most: int) -> Check:
    """Check for bytes, so many of them."""

    def check(value: Any) -> bytes:
        good = isinstance(value, bytes) and fewest <= len(value) <= most
        _expect(good, f"{fewest}-{most} bytes", value)
        return bytes(value)

    return check


def many(item: Check, most: int) -> Check:
    """Check for a run of items."""

    def check(value: Any) -> tuple[Any, ...]:
        good = isinstance(value, tuple) and len(value) <= most
        _expect(good, f"up to {most} items", value)
        return tuple(item(each) for each in value)

    return check


def optional(item: Check) -> Check:
    """Allow None, which means unchanged."""

    def check(value: Any) -> Any:
        return None if value is None else item(value)

    return check


def or_empty(item: Check) -> Check:
    """Allow empty bytes, which means there is none."""

    def check(value: Any) -> Any:
        return b"" if value == b"" else item(value)

    return check


def pair(first: Check, second: Check) -> Check:
    """Check for two values."""

    def check(value: Any) -> tuple[Any, Any]:
        _expect(isinstance(value, tuple) and len(value) == 2, "a pair", value)
        return first(value[0]), second(value[1])

    return check


def row(kind: type[NamedTuple], *checks: Check) -> Check:
    """Check for all fields of a row."""

    def check(value: Any) -> Any:
        good = isinstance(value, tuple) and len(value) == len(checks)
        _expect(good, f"{len(checks)} fields of {kind.__name__}", value)
        values = [each(item) for each, item in zip(checks, value, strict=True)]
        return kind(*values)

    return check


def _name(value: Any) -> str:
    _expect(isinstance(value, str) and _NAME.fullmatch(value) is not None, "a name", value)
    return str(value)


def _address(value: Any) -> bytes:
    _expect(isinstance(value, bytes) and len(value) in (4, 16), "an address", value)
    address = ipaddress.ip_address(value)
    _expect(not (address.is_multicast or address.is_unspecified), "a unicast address", address)
    return bytes(value)


def _prefix(value: Any) -> bytes:
    _expect(isinstance(value, bytes), "a prefix", value)
    try:
        prefix_from_bytes(value)
    except ValueError as error:
        raise FieldError(str(error)) from error
    return bytes(value)


def _truth(value: Any) -> bool:
    _expect(type(value) is bool, "a truth value", value)
    return bool(value)


def _networks(value: Any) -> str:
    _expect(isinstance(value, str) and len(value) <= 64 * 1024, "prefixes as text", value)
    try:
        return " ".join(str(ipaddress.ip_network(each)) for each in value.split())
    except ValueError as error:
        raise FieldError(str(error)) from error


def _clock(value: Any) -> float:
    good = type(value) in (float, int) and math.isfinite(value) and 0 <= value <= _MAX_CLOCK
    _expect(good, "a time of the replicated clock", value)
    return float(value)


NAME: Check = _name
ADDRESS: Check = _address
PREFIX: Check = _prefix
CLOCK: Check = _clock
TRUTH: Check = _truth
NETWORKS: Check = _networks  # as text, separated by spaces
KEY: Check = octets(32, 32)
PORT: Check = integer(65535, 1)
OCTET: Check = integer(255)
INSTANCE: Check = integer((1 << 32) - 1)
NONCE: Check = integer((1 << 64) - 1)
