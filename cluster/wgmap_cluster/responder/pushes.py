"""Unsolicited Map-Notifies that are out: repeated until acknowledged, bounded."""

import heapq
import random
from dataclasses import dataclass, field
from typing import NamedTuple

from wgmap.lisp.codec import acknowledgement, map_notify_header
from wgmap.lisp.mark import Mark
from wgmap_cluster.responder.answers import Encoded

FIRST_REPEAT_S = 0.05
LAST_REPEAT_S = 3.0  # RFC 9301, section 5.7
UNHEARD = 4096  # pairs whose push was given up, the last ones
_NONCE = slice(4, 12)
_I = 0x02  # in the first byte of a Map-Notify


class Effort(NamedTuple):
    """How often a push is sent at most, and whether its subject asked and waits for it."""

    attempts: int
    awaited: bool = False


@dataclass(slots=True)
class Push:
    """One Map-Notify to one agent about one subject."""

    subject: str
    name: str  # of the agent that is told
    address: str
    datagram: bytes
    left: int  # how often it may still be sent
    since: float | None  # somebody asked, and it is waited for; None: nobody did
    wait: float = FIRST_REPEAT_S


@dataclass(slots=True)
class Pushes:
    """The pushes that are out; one for each (subject, agent), a newer one takes its place.

    ``most`` are out at a time; while it is full a new one is refused.
    """

    rng: random.Random
    most: int
    _by_nonce: dict[int, Push] = field(default_factory=dict)
    _by_pair: dict[tuple[str, str], int] = field(default_factory=dict)
    _due: list[tuple[float, int]] = field(default_factory=list)
    _unheard: dict[tuple[str, str], None] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._by_nonce)

    def is_out(self, pair: tuple[str, str]) -> bool:
        """Say whether a push of ``pair`` (subject, agent) waits for its acknowledgement."""
        return pair in self._by_pair

    def was_unheard(self, pair: tuple[str, str]) -> bool:
        """Say whether the last push of ``pair`` was given up: nobody acknowledged it."""
        return pair in self._unheard

    def heard(self, subject: str, agent: str) -> None:
        """Note that an agent was told of a subject in another way: it asked."""
        if self._unheard:
            self._unheard.pop((subject, agent), None)

    def start(
        self,
        pair: tuple[str, str],
        address: str,
        records: Encoded,
        now: float,
        effort: Effort,
        mark: Mark | None = None,
    ) -> bytes | None:
        """Return the first datagram of a push of ``pair`` (subject, agent); None if refused.

        Who waited for the one before waits for this one.
        """
        since = now if effort.awaited else None
        old = self._by_pair.get(pair)
        if old is not None:
            waited = self._drop(old).since
            since = since if waited is None else waited
        elif len(self._by_nonce) >= self.most:
            return None
        nonce = self.rng.getrandbits(64)
        while nonce in self._by_nonce:
            nonce = self.rng.getrandbits(64)
        datagram = map_notify_header(nonce, records.count, identified=mark is not None)
        datagram += records.data + (mark.encode() if mark is not None else b"")
        self._by_nonce[nonce] = Push(*pair, address, datagram, effort.attempts - 1, since)
        self._by_pair[pair] = nonce
        self._unheard.pop(pair, None)
        heapq.heappush(self._due, (now + FIRST_REPEAT_S, nonce))
        return datagram

    def acknowledged(self, nonce: int, address: str) -> Push | None:
        """Take in a Map-Notify-Ack; None where nothing is out to that address with its nonce."""
        push = self._by_nonce.get(nonce)
        if push is None or push.address != address:
            return None
        return self._drop(nonce)

    def repeats(self, ack: bytes, address: str) -> Push | None:
        """Take in a datagram that is the acknowledgement of a push to the byte; None: it is not.

        One with an I field is not: what the agent says there is its own.
        """
        nonce = int.from_bytes(ack[_NONCE])
        push = self._by_nonce.get(nonce)
        if push is None or push.address != address or push.datagram[0] & _I:
            return None
        if ack != acknowledgement(push.datagram):
            return None
        return self._drop(nonce)

    def repeat(self, now: float) -> tuple[list[tuple[str, bytes]], list[Push]]:
        """Return (address, datagram) of those to be sent again, and what was given up."""
        again: list[tuple[str, bytes]] = []
        given_up: list[Push] = []
        while self._due and self._due[0][0] <= now:
            _, nonce = heapq.heappop(self._due)
            push = self._by_nonce.get(nonce)
            if push is None:
                continue
            if push.left <= 0:
                self._give_up(nonce, (push.subject, push.name))
                given_up.append(push)
                continue
            push.left -= 1
            push.wait = min(2 * push.wait, LAST_REPEAT_S)
            heapq.heappush(self._due, (now + push.wait, nonce))
            again.append((push.address, push.datagram))
        return again, given_up

    def next_repeat(self) -> float | None:
        """Return when repeat() has something to do."""
        while self._due and self._due[0][1] not in self._by_nonce:
            heapq.heappop(self._due)
        return self._due[0][0] if self._due else None

    def forget_agent(self, name: str) -> None:
        """Let go of all pushes to an agent that is no longer enrolled."""
        for nonce in [n for n, push in self._by_nonce.items() if push.name == name]:
            self._drop(nonce)

    def _give_up(self, nonce: int, pair: tuple[str, str]) -> None:
        self._drop(nonce)
        self._unheard[pair] = None
        if len(self._unheard) > UNHEARD:
            del self._unheard[next(iter(self._unheard))]

    def _drop(self, nonce: int) -> Push:
        push = self._by_nonce.pop(nonce)
        del self._by_pair[push.subject, push.name]
        if len(self._due) > 2 * self.most + 64:  # acknowledged ones linger there
            self._due = [item for item in self._due if item[1] in self._by_nonce]
            heapq.heapify(self._due)
        return push
