"""Backup of the state from any server, and its restore into an empty cluster."""

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from typing_extensions import TypedDict

from wgmap.addresses import prefix_to_bytes
from wgmap.errors import ConfigError, UnavailableError
from wgmap.log import Log
from wgmap.wg.keys import PublicKey
from wgmap_cluster.backup import form, sealing
from wgmap_cluster.backup.restoring import Restoring
from wgmap_cluster.fsm.commands import (
    Command,
    Note,
    Origin,
    RestoreBegin,
    RestoreEnd,
    RestoreRows,
)
from wgmap_cluster.fsm.machine import Machine
from wgmap_cluster.fsm.packing import pack_rows
from wgmap_cluster.fsm.results import Done, Reason
from wgmap_cluster.fsm.rows import Meta
from wgmap_cluster.raft.interface import Proposal, ReplicatedLog
from wgmap_cluster.replica.proposing import NotReadByAllError
from wgmap_cluster.supervisor import keys

MAX_BACKUPS = 2  # at one time: each holds a copy of the tables while its reader is slow
BARRIER_S = 2.0
ATTEMPTS = 10  # of one piece of a restore; each is proposed for 1.5 s
RETRY_S = 0.2
_LOG = Log("replica.archive")
Do = Callable[[Command], Awaitable[tuple[Done, Proposal]]]


class RestoredView(TypedDict):
    """The answer to ``wgmap restore``."""

    cluster_id: str  # of this cluster
    backup_of: str  # cluster id
    backup_time: str
    backup_index: int
    peers: int
    mappings: int
    revoked: list[str]  # by the list that was given
    not_in_backup: list[str]  # names of that list
    servers_missing: list[str]  # in the backup, not in this cluster
    servers_rekeyed: list[str]  # in both, with another control key: agents must be told


class Archive:
    """Backups and restores through one server."""

    def __init__(
        self, name: str, machine: Machine, log: ReplicatedLog, do: Do, state_dir: Path | None
    ) -> None:
        """``do`` proposes a command and raises WgmapErrors; ``state_dir`` has the keys."""
        self._name = name
        self._machine = machine
        self._log = log
        self._do = do
        self._state_dir = state_dir
        self._backups = 0

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Take one of the few places; raises UnavailableError."""
        if self._backups >= MAX_BACKUPS:
            raise UnavailableError(f"{MAX_BACKUPS} backups are being taken already")
        self._backups += 1
        try:
            yield
        finally:
            self._backups -= 1

    async def backup(self, who: tuple[str, str], seal_to: PublicKey | None) -> Iterator[bytes]:
        """Return a backup of all that was acknowledged before the call, in bounded pieces.

        ``who`` is the operator and its wall clock. Who takes one has the secrets of plain LISP
        clients: the audit trail, also the one in the backup, says so.
        """
        if await self._log.read_barrier(BARRIER_S) is None:
            raise UnavailableError(
                "no quorum of servers: a backup might lack what was acknowledged"
            )
        state = self._machine.state
        if not state.founded or Meta.RESTORING in state.meta:
            raise UnavailableError(str(Reason.RESTORING if state.founded else Reason.NOT_FOUNDED))
        sealed = None if seal_to is None else self._sealed(seal_to)
        await self._note_backup(Origin(self._name, *who), seal_to)
        tables = form.copied(self._machine.state.tables)
        return form.write(tables, self._machine.index, who[1], self._name, sealed)

    async def _note_backup(self, origin: Origin, seal_to: PublicKey | None) -> None:
        keys_of = f"with the keys of {self._name}, sealed to {seal_to}"
        detail = "without the servers' keys" if seal_to is None else keys_of
        try:
            await self._do(Note("backup", self._name, detail, origin))
        except NotReadByAllError as error:
            # While servers are upgraded, or one is down, a backup is wanted more than its row.
            _LOG.warning(
                "a backup is not in the audit trail", operator=origin.operator, reason=error
            )

    def _sealed(self, to: PublicKey) -> form.Keys:
        if self._state_dir is None:
            raise ConfigError("this server does not know where its keys lie")
        private = {
            name: keys.load(self._state_dir, name).reveal()
            for name in (keys.CONTROL_KEY, keys.MESH_KEY)
        }
        cluster_id = self._machine.state.meta[Meta.CLUSTER_ID]
        assert isinstance(cluster_id, bytes)
        return form.Keys(self._name, sealing.seal(private, to, cluster_id, self._name))

    async def restore(
        self,
        digest: bytes,
        revoked: Iterable[str],
        pieces: AsyncIterator[bytes],
        who: tuple[str, str],
    ) -> RestoredView:
        """Put a backup in; the same again goes on where it was broken off.

        ``digest`` names the backup with the list; ``who`` is the operator and its wall clock.
        ConflictError where this cluster is not empty; BackupError for what is no whole backup,
        and then it may be in partly: nobody can register until a restore has come to its end.
        """
        return await _Restore(self, digest, sorted(set(revoked)), who).run(pieces)

    async def do(self, command: Command) -> Done:
        """Propose a piece again until its end is known; each takes effect once."""
        for _ in range(ATTEMPTS - 1):
            try:
                return (await self._do(command))[0]
            except UnavailableError:
                await asyncio.sleep(RETRY_S)
        return (await self._do(command))[0]

    @property
    def server(self) -> str:
        """The name of this server."""
        return self._name

    @property
    def machine(self) -> Machine:
        """The state."""
        return self._machine


class _Restore:
    """One restore under way."""

    def __init__(
        self, archive: Archive, digest: bytes, revoked: list[str], who: tuple[str, str]
    ) -> None:
        self._archive = archive
        self._digest = digest
        self._revoked = revoked
        self._origin = Origin(archive.server, *who)
        self._rows = Restoring(archive.machine.state.clock, revoked)
        self._number = 0
        self._done = 0  # pieces that were in before

    async def run(self, pieces: AsyncIterator[bytes]) -> RestoredView:
        reader = form.Reader()
        async for piece in pieces:
            for frame in reader.feed(piece):
                await self._frame(frame)
        head = reader.finish()
        for data in pack_rows(self._rows.finish(), form.ROWS_BYTES):
            await self._put(data)
        detail = f"backup of {head.cluster_id.hex()} at {head.index} of {head.wall}"
        await self._archive.do(RestoreEnd(self._digest, self._number, detail[:256], self._origin))
        return self._view(head)

    async def _frame(self, frame: form.Frame) -> None:
        match frame:
            case form.Head():
                control = prefix_to_bytes(_network(frame.control_prefix))
                begun = await self._archive.do(RestoreBegin(self._digest, control, self._origin))
                self._done = begun.count
            case form.Rows():
                for data in pack_rows(self._rows.rows(frame.changes()), form.ROWS_BYTES):
                    await self._put(data)
            case form.Keys():
                pass  # for whoever sets servers up, see ``wgmap restore --unseal-with``

    async def _put(self, data: bytes) -> None:
        self._number += 1
        if self._number > self._done:
            await self._archive.do(RestoreRows(self._digest, self._number, data))

    def _view(self, head: form.Head) -> RestoredView:
        state = self._archive.machine.state
        cluster_id = state.meta[Meta.CLUSTER_ID]
        present = {name: row.control_key for name, row in state.servers.items()}
        counts = state.counts()
        return {
            "cluster_id": cluster_id.hex() if isinstance(cluster_id, bytes) else "",
            "backup_of": head.cluster_id.hex(),
            "backup_time": head.wall,
            "backup_index": head.index,
            "peers": counts.peers,
            "mappings": counts.mappings,
            "revoked": sorted(self._rows.met),
            "not_in_backup": [name for name in self._revoked if name not in self._rows.met],
            "servers_missing": [name for name, _ in head.servers if name not in present],
            "servers_rekeyed": [
                name for name, key in head.servers if present.get(name, key) != key
            ],
        }


def _network(text: str) -> ipaddress.IPv6Network:
    try:
        return ipaddress.IPv6Network(text)
    except ValueError as error:
        raise form.BackupError(f"the control prefix of the backup: {error}") from error
