"""Map-Versions: 12 bits, 1 to 4095, in the circular order of RFC 9302, section 6."""

from typing import Final

NO_VERSION: Final = 0  # the null Map-Version: no statement
HIGHEST: Final = 4095
_HALF: Final = 2048


def next_version(version: int) -> int:
    """Return the version after ``version``; the null version is skipped on wrap-around."""
    return 1 if version >= HIGHEST else version + 1


def is_newer(version: int, other: int) -> bool:
    """Tell whether ``version`` is newer than ``other``; anything is newer than no version."""
    if NO_VERSION in (version, other):
        return version != other and other == NO_VERSION
    if version > other:
        return version - other <= _HALF
    return other - version > _HALF


def newest(version: int, other: int) -> int:
    """Return the newer one of two."""
    return version if is_newer(version, other) else other
