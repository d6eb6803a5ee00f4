"""Bearer tokens for the API over TCP: made here, kept as hashes in a file, checked.

The file has one token a line, ``NAME ROLE HASH``, and comments after ``#``. It is read again when
it has changed, so a line that is taken out shuts its token out at once. A token is ``NAME.SECRET``
with 32 random bytes in it: a plain SHA-256 is enough for what cannot be guessed.
"""

import hashlib
import hmac
import os
import re
import secrets
import stat
from pathlib import Path
from typing import NamedTuple

from wgmap.errors import ConfigError, ConflictError
from wgmap_cluster.admin.routes import Role

MAX_BYTES = 1 << 20
MAX_TOKEN = 256  # characters
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_HASH = re.compile(r"[0-9a-f]{64}")
_NOBODY = "0" * 64  # no token has this hash: somebody unknown takes as long as somebody known


class Holder(NamedTuple):
    """Who has a token, and what it may do."""

    name: str
    role: Role
    digest: str

    def line(self) -> str:
        """Write it as in the file."""
        return f"{self.name} {self.role.name.lower()} {self.digest}"


def make(name: str, role: Role) -> tuple[str, Holder]:
    """Make a token; the text is shown once, and only its hash is kept. Raises ConfigError."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{name!r}: a token's name has letters, digits, - and _")
    token = f"{name}.{secrets.token_urlsafe(32)}"
    return token, Holder(name, role, _digest(token))


def read(text: str, where: str) -> dict[str, Holder]:
    """Read the file's text; raises ConfigError that names the line, and shows nothing of it."""
    holders: dict[str, Holder] = {}
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.partition("#")[0].split()
        if not fields:
            continue
        holder = _holder(fields)
        if holder is None or holder.name in holders:
            raise ConfigError(f"{where}: line {number} is not NAME ROLE HASH, or a name again")
        holders[holder.name] = holder
    return holders


def _holder(fields: list[str]) -> Holder | None:
    roles = {role.name.lower(): role for role in Role}
    match fields:
        case [name, role, digest] if role in roles:
            if _NAME.fullmatch(name) and _HASH.fullmatch(digest):
                return Holder(name, roles[role], digest)
    return None


def add(path: Path, holder: Holder) -> None:
    """Add a line to a file, which is made (0600) where there is none; raises WgmapErrors."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "r+") as file:
            text = file.read()
            if holder.name in read(text, str(path)):
                raise ConflictError(f"{path}: {holder.name} has a token already")
            file.write(("" if text.endswith("\n") or not text else "\n") + holder.line() + "\n")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error


class TokenFile:
    """The tokens of a file as it is now."""

    def __init__(self, path: Path) -> None:
        """Read it; raises ConfigError."""
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._holders: dict[str, Holder] = {}
        self._refresh()

    def check(self, token: str) -> Holder | None:
        """Return whose token it is; raises ConfigError where the file cannot be read now.

        Takes the same time for every token of a length, known or not.
        """
        self._refresh()
        holder = self._holders.get(token.partition(".")[0]) if len(token) <= MAX_TOKEN else None
        wanted = holder.digest if holder is not None else _NOBODY
        return holder if hmac.compare_digest(_digest(token), wanted) else None

    def _refresh(self) -> None:
        try:
            with self._path.open("rb") as file:
                found = os.fstat(file.fileno())
                stamp = (found.st_ino, found.st_mtime_ns, found.st_size)
                if stamp == self._stamp:
                    return
                if found.st_mode & (stat.S_IWGRP | stat.S_IRWXO):
                    raise ConfigError(f"{self._path}: open to others; chmod 640 or less")
                self._holders = read(file.read(MAX_BYTES).decode(), str(self._path))
                self._stamp = stamp
        except (OSError, UnicodeDecodeError) as error:
            self._stamp, self._holders = None, {}
            raise ConfigError(f"{self._path}: {error}") from error


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
