"""What agents missed: that this responder is new, and the revocations since they were here.

Who asked for what dies with a responder, so its incarnation travels in the I field of what agents
and servers say to each other (``wgmap.lisp.mark``): an agent that sees another one asks again.
"""

from wgmap.lisp.mark import NOTHING_HELD, Mark
from wgmap_cluster.responder.answers import Encoded, join, revocation
from wgmap_cluster.responder.follower import Follower

MAX_RECORDS = 24  # in one message: it fits 4 KiB; the acknowledgement of it brings the next one
MAX_LOOKED_AT = 1024  # revocations in one go, most of which may be of other instances


class News:
    """Compares the marks of agents with our own."""

    def __init__(self, follower: Follower, incarnation: bytes) -> None:
        self._follower = follower
        self._incarnation = incarnation
        self._nothing_new = (-1, b"")  # the last number, and the mark of who knows it

    def mark(self, number: int, since: int) -> Mark:
        """Return our mark for records of the revocations after ``since`` up to ``number``."""
        return Mark(self._incarnation, number, since)

    def is_none(self, mark: bytes) -> bool:
        """Say whether an agent with this mark has missed nothing."""
        last = self._follower.tables.last_revocation
        if self._nothing_new[0] != last:
            self._nothing_new = last, Mark(self._incarnation, last).encode()
        return mark == self._nothing_new[1]

    def since(self, mark: Mark, instance: int) -> tuple[Encoded, Mark]:
        """Return what an agent with this mark is told, and the mark that goes with it.

        One that holds nothing, or knows of more than there is (the cluster came from a backup),
        is told our number alone.
        """
        last = self._follower.tables.last_revocation
        if mark.number == NOTHING_HELD or mark.number >= last:
            return join([]), self.mark(last, last)
        pieces: list[Encoded] = []
        number, count = mark.number, 0
        looked_at = self._follower.tables.revoked_after(number, MAX_LOOKED_AT)
        for one in looked_at:
            row = self._follower.tables.revocations[one]
            its = join(revocation(row) if row.instance == instance else [])
            if count + its.count > MAX_RECORDS:
                break
            pieces.append(its)
            number, count = one, count + its.count
        told = Encoded(count, b"".join(piece.data for piece in pieces))
        return told, self.mark(number, mark.number)
