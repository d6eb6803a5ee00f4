"""The I field between agents and map servers: who answers, and which revocations are known.

RFC 9437 gives Map-Requests an xTR-ID and a Site-ID, RFC 9301 gives them to types 3 to 5. Between
a wgmap agent and a map server, inside the control tunnel (which tells who is who already), they
carry what both must compare now and then::

    xTR-ID   128 bits  incarnation of the map server's responder, random; 0: none known yet
    Site-ID   32 bits  ``since``: the records are the revocations after this number ...
              32 bits  ``number``: ... up to this one

An agent writes the server's incarnation as it knows it, 0, and the number of the last revocation
that it knows. In a Map-Register the 0 is all ones: RFC 9301 has the answer repeat the field, and no
news have that, so an agent tells the two apart. To other decoders both are identifiers without a
meaning.

A Map-Request whose first half of the Site-ID is TRACED asks what became of it. Beside the answer
comes a Map-Notify with its nonce, without records, that wants no acknowledgement::

    xTR-ID    64 bits  index: the last entry of the log that the answer accounts for
              32 bits  pushed: microseconds from the question to the push to the other side
              32 bits  acknowledged: the same to its Map-Notify-Ack; all ones: neither, or too late
    Site-ID   32 bits  TRACED
              32 bits  0
"""

from dataclasses import dataclass
from typing import NamedTuple, Self

from wgmap.lisp.messages import XtrId

MARK_BYTES = 24
UNKNOWN = bytes(16)  # no incarnation
OF_REGISTER = 0xFFFF_FFFF  # ``since`` in a Map-Register and in its answer
TRACED = 0xFFFF_FFFE  # ``since`` in a Map-Request: a report is wanted; and in that report
NOTHING_HELD = 0xFFFF_FFFF  # the number of an agent that holds no mapping: nothing to drop
_NEVER = 0xFFFF_FFFF


class Mark(NamedTuple):
    """An I field as values."""

    incarnation: bytes  # 16 bytes
    number: int
    since: int = 0

    def xtr(self) -> XtrId:
        """Write it as the fields of a message."""
        return XtrId(self.incarnation, self.since.to_bytes(4) + self.number.to_bytes(4))

    def encode(self) -> bytes:
        """Write it as the last bytes of a datagram."""
        return self.incarnation + self.since.to_bytes(4) + self.number.to_bytes(4)

    @classmethod
    def of(cls, xtr: XtrId) -> Self:
        """Read it from the fields of a message."""
        site = xtr.site_id
        return cls(xtr.xtr_id, int.from_bytes(site[4:]), int.from_bytes(site[:4]))

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read it from the last bytes of a datagram that has an I field."""
        return cls(data[:16], int.from_bytes(data[20:24]), int.from_bytes(data[16:20]))


@dataclass(frozen=True, slots=True)
class Report:
    """What became of a traced Map-Request. Times in seconds from its arrival; None: it did not."""

    index: int  # of the log
    pushed: float | None
    acknowledged: float | None

    def xtr(self) -> XtrId:
        """Write it as the fields of a message."""
        times = _micros(self.pushed) + _micros(self.acknowledged)
        return XtrId(self.index.to_bytes(8) + times, TRACED.to_bytes(4) + bytes(4))

    @classmethod
    def of(cls, xtr: XtrId) -> Self | None:
        """Read it from the fields of a Map-Notify; None: it is none."""
        if int.from_bytes(xtr.site_id[:4]) != TRACED:
            return None
        index, pushed, acknowledged = (xtr.xtr_id[a:b] for a, b in ((0, 8), (8, 12), (12, 16)))
        return cls(int.from_bytes(index), _seconds(pushed), _seconds(acknowledged))


def _micros(seconds: float | None) -> bytes:
    micros = _NEVER if seconds is None else min(round(seconds * 1e6), _NEVER - 1)
    return micros.to_bytes(4)


def _seconds(micros: bytes) -> float | None:
    value = int.from_bytes(micros)
    return None if value == _NEVER else value / 1e6


def marked(datagram: bytes, mark: Mark) -> bytes:
    """Put another mark in the place of a datagram's I field, which is its end."""
    return datagram[:-MARK_BYTES] + mark.encode()
