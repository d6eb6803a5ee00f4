"""What a restore makes of a backup's rows, so that nobody takes the new cluster's word for old.

A backup is older than the cluster that was lost. Three kinds of number would go back, and agents
that remember the lost cluster would refuse what is newer:

- *Map-Versions* are 12 bits in a circle (RFC 9302, section 6): of two versions the one up to 2048
  ahead is the newer. Each is set AHEAD = 1024 forward, a quarter of the circle. With v in the
  backup, the lost cluster may have served v + k; v + 1024 is newer than that for every k < 1024,
  and newer as well than any version less than 1023 changes *older* than v that an agent still
  holds (the sum, and the 0 that the circle skips, stay below 2048, where newer ends). So it is
  enough while no mapping changed 1024 times between the backup and the loss; one change a minute
  takes 17 hours to get there. More would take from the other side. Prefixes that the backup knows
  nothing of start above AHEAD too.
- *Revocation numbers* go on REVOCATION_GAP higher, so that none is used a second time.
- *Nonces* of registers need nothing: agents go on from their own, which are greater.

Peers come last: until then nobody has a control tunnel, and nobody sees half a table.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from wgmap_cluster.fsm.rows import (
    Change,
    MappingRow,
    Meta,
    PeerRow,
    RegistrationRow,
    RevocationRow,
    Table,
)
from wgmap_cluster.fsm.versions import HIGHEST, NO_VERSION

AHEAD: Final = 1024
REVOCATION_GAP: Final = 1 << 20
_KEPT_META = frozenset({Meta.OVERLAY, Meta.AUDITED})
_KEPT = frozenset({Table.AUDIT, Table.REVOCATIONS, Table.INSTANCES})


def ahead(version: int) -> int:
    """Return the version a quarter of the circle on; of no version, the one to start above."""
    return (version - 1 + AHEAD) % HIGHEST + 1 if version != NO_VERSION else AHEAD


class Restoring:
    """Turns the rows of a backup, in its order, into those to be put in."""

    def __init__(self, clock: float, revoked: Iterable[str]) -> None:
        """``clock``: the new cluster's; ``revoked``: peers that the backup still trusts."""
        self._clock = clock
        self._revoke = frozenset(revoked)
        self._revocation = 0
        self._floor = NO_VERSION
        self._keys: dict[str, bytes] = {}
        self.met: set[str] = set()  # which of ``revoked`` the backup knows

    def rows(self, changes: Iterable[Change]) -> Iterator[Change]:
        """Yield what becomes of rows."""
        for change in changes:
            if change.table is Table.META:
                yield from self._meta(change)
            else:
                yield from self._row(change)

    def finish(self) -> Iterator[Change]:
        """Yield what is known only at the end."""
        yield Change(Table.META, Meta.VERSION_FLOOR.value, ahead(self._floor))
        yield Change(Table.META, Meta.REVOCATIONS.value, self._revocation + REVOCATION_GAP)

    def _meta(self, change: Change) -> Iterator[Change]:
        row = change.row
        if change.key in _KEPT_META:
            yield change
        elif change.key == Meta.REVOCATIONS and isinstance(row, int):
            self._revocation = row
        elif change.key == Meta.VERSION_FLOOR and isinstance(row, int):
            self._floor = row

    def _row(self, change: Change) -> Iterator[Change]:
        row = change.row
        match change.table, row:
            case Table.VERSIONS, int(version):
                yield change._replace(row=ahead(version))
            case _, RegistrationRow():
                yield from self._registration(change, row)
            case _, MappingRow() if row.peer not in self._revoke:
                yield change._replace(row=row._replace(version=ahead(row.version)))
            case _, PeerRow():
                yield from self._peer(change, row)
            case _ if change.table in _KEPT:
                yield change
            case _:
                pass  # the mapping of a peer that is revoked now

    def _registration(self, change: Change, row: RegistrationRow) -> Iterator[Change]:
        if change.key in self._revoke:
            self._keys[str(change.key)] = row.key
        else:  # everybody's grace starts anew
            yield change._replace(row=row._replace(seen=self._clock))

    def _peer(self, change: Change, row: PeerRow) -> Iterator[Change]:
        name = str(change.key)
        if name not in self._revoke:
            yield change
            return
        self.met.add(name)
        if not row.revoked:
            key = self._keys.get(name, b"")
            self._revocation += 1
            number = self._revocation + REVOCATION_GAP
            revocation = RevocationRow(name, row.instance, row.prefixes, key)
            yield Change(Table.REVOCATIONS, number, revocation)
            row = row._replace(revoked=True, revision=row.revision + 1)
        yield change._replace(row=row)
