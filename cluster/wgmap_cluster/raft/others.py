"""What a server knows of the others: their notes, when they were heard, which disks they have."""

import logging

from wgmap_cluster.raft.interface import MemberStatus
from wgmap_cluster.raft.library import Library, now
from wgmap_cluster.raft.membership import Membership
from wgmap_cluster.raft.messages import Note
from wgmap_cluster.raft.wal import OWN
from wgmap_cluster.raft.wire import Wire

log = logging.getLogger(__name__)


class Others:
    """The other servers as one of them sees them."""

    def __init__(self, node: Library, membership: Membership, wire: Wire) -> None:
        self._node, self._membership, self._wire = node, membership, wire
        self._note, self._note_due = b"", 0.0
        self._notes: dict[str, bytes] = {}
        self._heard: dict[str, float] = {}

    # Notes.
    def publish(self, note: bytes) -> None:
        """Set this server's note; sent with the next housekeeping if it is new."""
        if note != self._note:
            self._note, self._note_due = note, 0.0

    def tell_soon(self) -> None:
        """Send the note again: there is somebody new to tell."""
        self._note_due = 0.0

    def tell(self, time: float) -> None:
        """Send the note where it is due."""
        if time < self._note_due:
            return
        self._note_due = time + self._node.settings.note_interval_s
        for name in self._membership.others():
            if self._wire.connected(name):
                self._node.send(name, Note(self._note))

    def noted(self, name: str, note: bytes) -> None:
        """Take another server's note."""
        self._notes[name] = note

    def heard(self, name: str) -> None:
        """Take note that something came from a server."""
        self._heard[name] = now()

    def status(self) -> dict[str, MemberStatus]:
        """Return what is known of each."""
        time = now()
        return {name: self._status(name, time) for name in sorted(self._membership.others())}

    def _status(self, name: str, time: float) -> MemberStatus:
        heard = self._heard.get(name)
        since = None if heard is None else time - heard
        note = self._notes.get(name, b"")
        return MemberStatus(name, self._wire.connected(name), note, since)

    # Disks.
    def store(self) -> bytes:
        """Return the identity of this server's disk."""
        return self._node.wal.image.stores[OWN]

    def admit(self, name: str, store: bytes) -> bool:
        """Tell whether ``name`` may connect: a server whose disk was wiped must be added anew.

        It has forgotten what it acknowledged and whom it voted for; in its old place it could
        help to elect a leader without entries that are committed. What the log says counts before
        what this server remembers: it may have been away while another one was replaced.
        """
        stores = self._node.wal.image.stores
        expected = self._membership.store(name) or stores.get(name, store)
        if expected != store:
            log.error("%s came back with another disk; remove it, then add it", name)
            return False
        if name not in stores:
            self._node.wal.set_stores({**stores, name: store})
        return True

    def forget_stores(self) -> None:
        """Forget the disks of servers that are none any more."""
        stores = self._node.wal.image.stores
        known = {member.name for member in self._membership.connectable()}
        kept = {name: store for name, store in stores.items() if name in known}
        if kept.keys() != stores.keys() - {OWN}:
            self._node.wal.set_stores(kept)
