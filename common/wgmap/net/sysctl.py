"""Kernel settings under /proc/sys, of the network namespace of the calling thread."""

import errno
from pathlib import Path

from wgmap.net.errors import NetworkError

ROOT = Path("/proc/sys")


def read(*path: str) -> str:
    """Read a setting, named by its parts; raises NetworkError.

    Parts, not dots: names of interfaces may have dots.
    """
    try:
        return _file(path).read_text(encoding="ascii").strip()
    except OSError as error:
        raise NetworkError(_text(path), error.errno or errno.EIO) from error


def write(*path: str, value: int | str) -> None:
    """Write a setting and read it back; raises NetworkError (EIO: the kernel took another).

    Nothing is written where the value is there already (/proc/sys may be read-only).
    """
    if read(*path) == str(value):
        return
    try:
        _file(path).write_text(f"{value}\n", encoding="ascii")
    except OSError as error:
        raise NetworkError(f"{_text(path)} = {value}", error.errno or errno.EIO) from error
    if (found := read(*path)) != str(value):
        raise NetworkError(f"{_text(path)} = {value}: it is still {found}", errno.EIO)


def _file(path: tuple[str, ...]) -> Path:
    if any("/" in part or part in {"", ".", ".."} for part in path):
        raise NetworkError(_text(path), errno.EINVAL)
    return ROOT.joinpath(*path)


def _text(path: tuple[str, ...]) -> str:
    return "sysctl " + "/".join(path)
