"""The data tunnels of a crowd: handshakes are answered, and what comes is sent back."""

import itertools
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from crowd.members import Member
from wgmap_chaos.load.noise import INITIATION, TRANSPORT, NoiseError, Session, answer

if TYPE_CHECKING:
    from wgmap.wg.keys import PublicKey

KEPT = 3  # sessions of one pair of hosts: WireGuard has a previous, a current and a next one
_UDP, _ICMP = 17, 1
_ECHO_REQUEST = 8  # RFC 792


@dataclass
class Counts:
    """What came to all hosts."""

    handshakes: int = 0
    packets: int = 0
    refused: int = 0  # of no session that is known


class Tunnels:
    """All data tunnels; ``send`` is given where from, a datagram, and where it goes."""

    def __init__(self, send: Callable[[bytes, bytes, tuple[str, int]], None]) -> None:
        self._send = send
        self._indices = itertools.count(1)
        self._sessions: dict[int, Session] = {}
        self._of_pair: dict[tuple[Member, PublicKey], list[int]] = {}
        self.counts = Counts()

    def hear(self, member: Member, place: bytes, datagram: bytes, source: tuple[str, int]) -> None:
        """Take a datagram in that came to a member at one of its places (packed)."""
        try:
            if datagram[0] == INITIATION:
                self._send(place, self._handshake(member, datagram), source)
            elif datagram[0] == TRANSPORT:
                reply = self._packet(datagram)
                if reply is not None:
                    self._send(place, reply, source)
        except (NoiseError, IndexError, KeyError, struct.error):
            self.counts.refused += 1

    def _handshake(self, member: Member, initiation: bytes) -> bytes:
        index = next(self._indices) & 0xFFFF_FFFF
        answered = answer(member.data_key, initiation, index)
        of_pair = self._of_pair.setdefault((member, answered.initiator), [])
        of_pair.append(index)
        while len(of_pair) > KEPT:
            del self._sessions[of_pair.pop(0)]
        self._sessions[index] = answered.session
        self.counts.handshakes += 1
        return answered.response

    def _packet(self, datagram: bytes) -> bytes | None:
        (index,) = struct.unpack_from("<I", datagram, 4)
        session = self._sessions[index]
        reply = echo(session.open(datagram))
        if reply is None:
            return None
        self.counts.packets += 1
        return session.seal(reply)


def echo(packet: bytes) -> bytes | None:
    """Return the packet that goes back: UDP to its sender, an echo request as its reply.

    None for everything else, keepalives too. Sums of ones' complement do not change where words
    change places (RFC 1071), and type 8 becomes 0, which is 0x0800 less.
    """
    if len(packet) < 28 or packet[0] != 0x45:
        return None
    length = int.from_bytes(packet[2:4])
    head = packet[:12] + packet[16:20] + packet[12:16]
    if packet[9] == _UDP:
        return head + packet[22:24] + packet[20:22] + packet[24:length]
    if packet[9] == _ICMP and packet[20] == _ECHO_REQUEST:
        total = int.from_bytes(packet[22:24]) + (_ECHO_REQUEST << 8)
        checksum = (total & 0xFFFF) + (total >> 16)
        return head + b"\0" + packet[21:22] + checksum.to_bytes(2) + packet[24:length]
    return None
