"""``wgmap backup`` and ``wgmap restore``."""

import argparse
import hashlib
import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import urlencode

from wgmap.errors import ConfigError, ExitCode
from wgmap.progress import Progress
from wgmap.wg import keyfile
from wgmap.wg.keys import PrivateKey
from wgmap_cluster.backup import form, sealing
from wgmap_cluster.cli.client import Client
from wgmap_cluster.cli.commands import Report
from wgmap_cluster.fsm.rows import PeerRow, Table

if TYPE_CHECKING:
    from wgmap_cluster.replica.archive import RestoredView

PIECE = 64 * 1024
RESTORE_TIMEOUT_S = 120.0  # without any word from the server
MAX_REVOKE_BYTES = 900 * 1024
NO_KEYS = (
    "the servers' private keys are NOT in this backup: if all servers are lost, every agent must"
    " be given new ones (--seal-to KEY puts them in, sealed to you)"
)


class Summary:
    """What a backup holds, collected while it goes by."""

    def __init__(self) -> None:
        """Start with nothing."""
        self.reader = form.Reader()
        self.rows: Counter[Table] = Counter()
        self.keys: list[form.Keys] = []
        self.secrets = 0  # peers with a shared secret
        self.size = 0

    def feed(self, data: bytes) -> None:
        """Check and count; raises BackupError."""
        self.size += len(data)
        for frame in self.reader.feed(data):
            if isinstance(frame, form.Keys):
                self.keys.append(frame)
            elif isinstance(frame, form.Rows):
                for change in frame.changes():
                    self.rows[change.table] += 1
                    self.secrets += isinstance(change.row, PeerRow) and bool(change.row.lisp_key)

    def value(self) -> dict[str, object]:
        """Return it for programs."""
        head = self.reader.finish()
        return {
            "cluster_id": head.cluster_id.hex(),
            "index": head.index,
            "time": head.wall,
            "server": head.server,
            "peers": self.rows[Table.PEERS],
            "mappings": self.rows[Table.MAPPINGS],
            "audit": self.rows[Table.AUDIT],
            "keys_of": [each.server for each in self.keys],
            "bytes": self.size,
        }


def backup(client: Client, options: argparse.Namespace) -> Report:
    """Write a backup: whole and checked, or not at all."""
    query = "" if options.seal_to is None else "?" + urlencode({"seal_to": str(options.seal_to)})
    summary = Summary()
    pieces = client.receive("/v1/backup" + query)
    _write_whole(options.file, _checked(pieces, summary, client.progress))
    value = {"file": str(options.file), **summary.value()}
    servers = ", ".join(each.server for each in summary.keys)
    warning = (
        f"sealed keys of {servers} only: take a backup from each server" if servers else NO_KEYS
    )
    if summary.secrets:
        warning += f"\nwgmap: shared secrets of LISP clients ({summary.secrets}) ARE in it: keep it"
        warning += " private"
    text = f"{options.file}: {value['peers']} peers, {value['mappings']} mappings"
    return Report(value, text, warning=warning)


def _checked(pieces: Iterable[bytes], summary: Summary, progress: Progress) -> Iterator[bytes]:
    for piece in pieces:
        summary.feed(piece)
        progress.tell(summary.size, None, "bytes")
        yield piece
    summary.reader.finish()


def _write_whole(path: Path, pieces: Iterable[bytes]) -> None:
    """Write beside the file, sync, rename: what is under the name is always a whole backup."""
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            _write_synced(file, pieces)
        temporary.rename(path)
        _sync_directory(path.parent)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def _write_synced(file: BinaryIO, pieces: Iterable[bytes]) -> None:
    for piece in pieces:
        file.write(piece)
    file.flush()
    os.fsync(file.fileno())


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def restore(client: Client, options: argparse.Namespace) -> Report:
    """Put a backup into an empty cluster; with a key, take the servers' keys out of it."""
    summary = Summary()
    digest = hashlib.sha256()
    client.progress.say(f"checking {options.file}")
    try:
        for piece in _pieces(options.file):
            summary.feed(piece)
            digest.update(piece)
        head = summary.reader.finish()
    except form.BackupError as error:
        raise ConfigError(f"{options.file}: {error}") from error
    if options.unseal_with is not None:
        return _unsealed(summary, head, options)
    revoked = _names(options.revoke) if options.revoke is not None else []
    digest.update("\n".join(revoked).encode())
    first = json.dumps({"digest": digest.hexdigest(), "revoke": revoked}).encode() + b"\n"
    body = _told(first, options.file, summary.size, client.progress)
    view: RestoredView = client.send("/v1/restore", body, RESTORE_TIMEOUT_S)
    return Report(view, _restored(view), warning=_unknown(view))


def _pieces(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while piece := file.read(PIECE):
                yield piece
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error


def _told(first: bytes, path: Path, size: int, progress: Progress) -> Iterator[bytes]:
    done = 0
    yield first
    for piece in _pieces(path):
        yield piece
        done += len(piece)
        progress.tell(done, size, "bytes")
    progress.say("waiting until all of it is in the log")


def _names(path: Path) -> list[str]:
    """Read a list of peers: one name a line; what follows the name, and # lines, are comments."""
    data = b"".join(_pieces(path))
    if len(data) > MAX_REVOKE_BYTES:
        raise ConfigError(f"{path}: over {MAX_REVOKE_BYTES} bytes")
    try:
        lines = data.decode().splitlines()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: {error}") from error
    return sorted({line.split()[0] for line in lines if line.strip() and line.strip()[0] != "#"})


def _restored(view: "RestoredView") -> str:
    lines = [
        f"restored {view['peers']} peers and {view['mappings']} mappings"
        f" of cluster {view['backup_of']} as of {view['backup_time']}",
        f"this is cluster {view['cluster_id']}: servers of the old one are not let in",
    ]
    if view["revoked"]:
        lines.append(f"revoked: {', '.join(view['revoked'])}")
    return "\n".join(lines)


def _unknown(view: "RestoredView") -> str:
    said = [
        f"what was enrolled, changed or revoked after {view['backup_time']} is not known here;"
        " look for it in shipped events or audit trails",
    ]
    if view["not_in_backup"]:
        said.append(f"to be revoked, but not in the backup: {', '.join(view['not_in_backup'])}")
    if view["servers_missing"]:
        said.append(f"servers not in this cluster: {', '.join(view['servers_missing'])}")
    if view["servers_rekeyed"]:
        said.append(f"agents must be given new keys of: {', '.join(view['servers_rekeyed'])}")
    return "\nwgmap: ".join(said)


def _unsealed(summary: Summary, head: form.Head, options: argparse.Namespace) -> Report:
    key: PrivateKey = keyfile.load(options.unseal_with)
    if not summary.keys:
        raise ConfigError(f"{options.file}: no keys of servers in it")
    written = []
    for each in summary.keys:
        private = sealing.unseal(each.sealed, key, head.cluster_id, each.server)
        for name, data in private.items():
            written.append(str(_write_key(options.keys_to / each.server, name, data)))
    text = "\n".join([*written, "next: put them into the state directories"])
    return Report({"written": written}, text, ExitCode.OK)


def _write_key(directory: Path, name: str, data: bytes) -> Path:
    """Write a key file of mode 0600; one that is there is never replaced."""
    path = directory / name
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(PrivateKey(data).encode() + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    return path
