"""Private keys on disk: base64 in a file that only its owner can read."""

import os
import stat
import tempfile
from pathlib import Path

from wgmap.errors import ConfigError
from wgmap.wg.keys import PrivateKey

MAX_BYTES = 4096


def load(path: Path) -> PrivateKey:
    """Read a private key; raises ConfigError where it is missing, readable by others or bad."""
    try:
        with path.open("rb") as file:
            _check_mode(path, os.fstat(file.fileno()))
            text = file.read(MAX_BYTES).decode("ascii")
        return PrivateKey.parse(text)
    except OSError as error:
        msg = f"{path}: {error.strerror}"
        raise ConfigError(msg) from error
    except ValueError:
        # Nothing of the content may be shown, so the cause is cut off as well.
        msg = f"{path}: a WireGuard private key is 44 characters of base64"
        raise ConfigError(msg) from None


def load_or_create(path: Path) -> PrivateKey:
    """Read a private key, or make one where there is no file; raises ConfigError.

    A key that was returned is on disk, whole, and never replaces another: of two processes that
    make one at the same time, both return the first.
    """
    if not path.exists():
        try:
            _create(path, PrivateKey.generate())
        except OSError as error:
            msg = f"{path}: cannot make a key: {error.strerror}"
            raise ConfigError(msg) from error
    return load(path)


def _check_mode(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        msg = f"{path}: not a regular file"
        raise ConfigError(msg)
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077:
        msg = f"{path}: mode {mode:04o} lets others read a private key; chmod 600 it"
        raise ConfigError(msg)


def _create(path: Path, key: PrivateKey) -> None:
    # mkstemp: O_EXCL and mode 0600. A link, unlike a rename, refuses to replace.
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with open(descriptor, "w", encoding="ascii") as file:  # noqa: PTH123  # a descriptor
            file.write(key.encode() + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            path.hardlink_to(temporary)
        except FileExistsError:
            return
    finally:
        temporary.unlink()
    _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
