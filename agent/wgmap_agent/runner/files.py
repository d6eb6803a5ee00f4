"""Files of the state directory: private, replaced as a whole, on disk when that returns."""

import os
from pathlib import Path
from typing import BinaryIO


def replace(path: Path, data: bytes) -> None:
    """Replace a file by these bytes, mode 0600; raises OSError, and then the former one is left."""
    temporary = path.with_name(path.name + ".new")
    with _create(temporary) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Wait until the names in a directory are on disk; raises OSError."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _create(path: Path) -> BinaryIO:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    os.fchmod(fd, 0o600)  # one that was left behind may have had another
    return os.fdopen(fd, "wb")
