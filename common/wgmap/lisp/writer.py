"""Numbers to bytes: what does not fit its field is a ValueError that names the field."""


def unsigned(value: int, size: int, name: str) -> bytes:
    """Write a big-endian integer of ``size`` bytes."""
    return bits(value, 8 * size, name).to_bytes(size, "big")


def bits(value: int, width: int, name: str) -> int:
    """Return ``value`` if it fits ``width`` bits; raises ValueError."""
    if not 0 <= value < 1 << width:
        msg = f"{name}: {value} does not fit {width} bits"
        raise ValueError(msg)
    return int(value)


def exactly(data: bytes, size: int, name: str) -> bytes:
    """Return ``data`` if it has ``size`` bytes; raises ValueError."""
    if len(data) != size:
        msg = f"{name}: {len(data)} bytes, not {size}"
        raise ValueError(msg)
    return bytes(data)
