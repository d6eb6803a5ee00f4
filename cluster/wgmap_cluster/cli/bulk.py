"""``wgmap peer import``: many peers from a file of JSON lines.

Every line is an object with the fields of ``wgmap peer add``: name, prefixes, control_key or
control_address, and where wanted instance, endpoint_allow, lisp_key, lisp_auth, limit. Blank lines
and lines that start with # are skipped. The whole file is read and checked before anything is
done; then it goes in batches, each of which is one command of the replicated log: all of it or
nothing. What is there already with the same values stays as it is, so a file can be given again.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from wgmap.errors import ConfigError, WgmapError
from wgmap_cluster.admin.bodies import MAX_BODY_BYTES, PeerBody, parse
from wgmap_cluster.cli.client import Client
from wgmap_cluster.cli.commands import Report
from wgmap_cluster.fsm.commands import MAX_ENROLLED
from wgmap_cluster.raft.interface import MAX_COMMAND_BYTES

MAX_LINE = 32 * 1024
BATCH = 200  # peers
_ROOM = 1024  # of a command or body, for what is around the peers
assert BATCH <= MAX_ENROLLED


class Line(NamedTuple):
    """A line of the file that names a peer."""

    number: int
    name: str
    text: bytes
    size: int  # most bytes of it in a command


def peer_import(client: Client, options: argparse.Namespace) -> Report:
    """Enrol all peers of a file."""
    name = "the input" if options.file == Path("-") else str(options.file)
    by_hand = options.file == Path("-") and sys.stdin.isatty()  # nothing is drawn into that
    client.progress.say("" if by_hand else f"reading {name}")
    lines = list(read(_raw(options.file), name))
    enrolled = unchanged = 0
    for batch in batches(lines):
        client.progress.tell(enrolled + unchanged, len(lines), "peers")
        done = _send(client, batch, name, enrolled + unchanged)
        enrolled += done["enrolled"]
        unchanged += done["unchanged"]
    text = f"{enrolled} peers enrolled, {unchanged} were there already"
    return Report({"enrolled": enrolled, "unchanged": unchanged}, text)


def read(raw: Iterator[bytes], name: str) -> Iterator[Line]:
    """Check the lines one by one; raises ConfigError that names the file and the line."""
    seen: dict[str, int] = {}
    for number, line in enumerate(raw, 1):
        text = line.strip()
        if not text or text.startswith(b"#"):
            continue
        try:
            peer = _peer(text, seen)
        except ConfigError as error:
            raise ConfigError(f"{name}: line {number}: {error}") from error
        seen[peer.name] = number
        yield Line(number, peer.name, text, _size(peer))


def _peer(text: bytes, seen: dict[str, int]) -> PeerBody:
    if len(text) > MAX_LINE:
        raise ConfigError(f"longer than {MAX_LINE} bytes")
    peer = parse(text, PeerBody)
    if peer.name in seen:
        raise ConfigError(f"name: {peer.name} is in line {seen[peer.name]} already")
    return peer


def _size(peer: PeerBody) -> int:
    """Return how many bytes a peer can take in a command at most."""
    secret = len((peer.lisp_key or "").encode())
    return 100 + len(peer.name) + secret + 19 * (len(peer.prefixes) + len(peer.endpoint_allow))


def batches(lines: list[Line]) -> Iterator[list[Line]]:
    """Yield runs of lines that fit one request and one command."""
    batch: list[Line] = []
    body = command = _ROOM
    for line in lines:
        body += len(line.text) + 2
        command += line.size
        if batch and (len(batch) >= BATCH or body > MAX_BODY_BYTES or command > MAX_COMMAND_BYTES):
            yield batch
            batch, body, command = [], _ROOM + len(line.text) + 2, _ROOM + line.size
        batch.append(line)
    if batch:
        yield batch


def _send(client: Client, batch: list[Line], name: str, before: int) -> dict[str, int]:
    peers: list[Any] = [json.loads(line.text) for line in batch]
    try:
        done: dict[str, int] = client.post("/v1/imports", {"peers": peers})
    except WgmapError as error:
        first, last = batch[0], batch[-1]
        position = error.position
        where = f"line {first.number} to {last.number}"
        if position is not None and 0 <= position < len(batch):
            where = f"line {batch[position].number}"
        done_before = f" ({before} peers of earlier lines are in; give the file again)"
        raise type(error)(f"{name}: {where}: {error}{done_before if before else ''}") from error
    return done


def _raw(path: Path) -> Iterator[bytes]:
    try:
        if path == Path("-"):
            yield from sys.stdin.buffer
        else:
            with path.open("rb") as file:
                yield from file
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
