"""Which cluster a server belongs to, known before its log has told it: servers of two never mix.

A server that was lost and comes back after its cluster was restored elsewhere has the names, keys
and addresses of a server, an old log and perhaps the higher term. The id of its cluster, which it
keeps beside its log, is what shuts it out (``raft.log.RaftLog``: the hello).
"""

import os
import tempfile
from pathlib import Path

from wgmap.log import Log
from wgmap_cluster.fsm.machine import Machine
from wgmap_cluster.fsm.results import Applied
from wgmap_cluster.fsm.rows import Meta, Table
from wgmap_cluster.raft.interface import LogError

FILE = "cluster_id"
LENGTH = 16
_LOG = Log("replica.identity")


class ClusterIdentity:
    """The id from the state, and until that is there the one of before; b"" on a new server."""

    def __init__(self, machine: Machine, directory: Path) -> None:
        """Listen to the machine; raises LogError where the file cannot be read."""
        self._machine = machine
        self._path = directory / FILE
        self._known = self._read()
        machine.listen(self._applied)
        machine.listen_restored(self._keep)

    def __call__(self) -> bytes:
        """Return the id, 16 bytes, or b"" before this server belongs to any cluster."""
        return self._known

    def _applied(self, _index: int, applied: Applied) -> None:
        if any(change[:2] == (Table.META, Meta.CLUSTER_ID) for change in applied.changes):
            self._keep()

    def _keep(self) -> None:
        """Write down what the log says, which is always right."""
        present = self._machine.state.meta.get(Meta.CLUSTER_ID, b"")
        assert isinstance(present, bytes)
        if not present or present == self._known:
            return
        if self._known:
            _LOG.warning("another cluster than before", was=self._known.hex(), now=present.hex())
        self._known = present
        try:
            self._write(present)
        except OSError as error:  # it protects, and nothing else depends on it
            _LOG.error("cannot keep the cluster's id", path=self._path, reason=error.strerror)

    def _read(self) -> bytes:
        try:
            data = bytes.fromhex(self._path.read_text("ascii"))
        except FileNotFoundError:
            return b""
        except (OSError, ValueError) as error:
            raise LogError(f"{self._path}: {error}") from error
        if len(data) != LENGTH:
            raise LogError(f"{self._path}: not the id of a cluster")
        return data

    def _write(self, data: bytes) -> None:
        descriptor, name = tempfile.mkstemp(prefix=f".{FILE}.", dir=self._path.parent)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(data.hex() + "\n")
            file.flush()
            os.fsync(file.fileno())
        Path(name).rename(self._path)
