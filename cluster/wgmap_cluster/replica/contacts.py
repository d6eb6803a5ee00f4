"""Who was told of whom, from all servers: each knows only those whom it told itself.

Questions and answers between servers are msgpack, ``[1, peer, other, most]`` and ``[1, [[agent,
subject, seconds ago, state], ...]]``; an empty answer says that there is no responder to ask.
"""

import asyncio
from collections.abc import Awaitable, Iterable
from typing import NamedTuple, Protocol

import msgpack

from wgmap.clock import now
from wgmap_cluster.feed import Contact
from wgmap_cluster.raft.interface import MemberStatus, ReplicatedLog
from wgmap_cluster.replica.notes import ANSWERS, ServerNote
from wgmap_cluster.replica.views import ContactsView, ContactView, ToldView

FORMAT = 1
MOST = 500  # pairs in one answer
MAX_NAME = 63
ANSWER_S = 1.0  # another server's time; its own responder has half of it
STATES = ("heard", "waiting", "unheard")


class Wanted(NamedTuple):
    """Those of a peer, of it and another one, or of anybody (""); at most so many."""

    peer: str = ""
    other: str = ""
    most: int = 100


class Told(NamedTuple):
    """One contact as one server tells of it."""

    agent: str
    subject: str
    ago_s: float
    state: str


class Responders(Protocol):
    """Who knows it on this server."""

    def contacts(self, peer: str, other: str, most: int) -> Awaitable[list[Contact] | None]:
        """Return them; None where nobody answers."""
        ...


class Contacts:
    """Asks this server's responders, and the other servers."""

    def __init__(self, name: str, log: ReplicatedLog, responders: Responders | None) -> None:
        """``name`` is this server."""
        self._name, self._log, self._responders = name, log, responders

    async def show(self, wanted: Wanted) -> ContactsView:
        """Return who was told of whom, as far as servers answer within ANSWER_S."""
        others = self._log.status().others
        names = [self._name, *others]
        asked = [self._own(wanted), *(self._of(one, wanted) for one in others.values())]
        answers = dict(zip(names, await asyncio.gather(*asked), strict=True))
        told = {name: answer for name, answer in answers.items() if answer is not None}
        return {
            "servers": sorted(told),
            "silent": sorted(answers.keys() - told.keys()),
            "contacts": _merged(told)[: wanted.most],
        }

    async def answer(self, question: bytes) -> bytes:
        """Answer another server; b"" for what is not understood, and where nobody knows."""
        match _unpacked(question):
            case [1, str(peer), str(other), int(most)] if _is_sane(peer, other, most):
                told = await self._own(Wanted(peer, other, most))
                answer: bytes = b"" if told is None else msgpack.packb([FORMAT, told])
                return answer
            case _:
                return b""

    async def _own(self, wanted: Wanted) -> list[Told] | None:
        if self._responders is None:
            return None
        found = await self._responders.contacts(*wanted)
        at = now()
        return None if found is None else [_told(one, at) for one in found]

    async def _of(self, member: MemberStatus, wanted: Wanted) -> list[Told] | None:
        note = ServerNote.decode(member.note)
        if not member.connected or note is None or note.answers < ANSWERS:
            return None
        answer = await self._log.ask(member.name, msgpack.packb([FORMAT, *wanted]), ANSWER_S)
        return None if answer is None else _read(answer)


def _is_sane(peer: str, other: str, most: int) -> bool:
    return max(len(peer), len(other)) <= MAX_NAME and 0 <= most <= MOST


def _told(contact: Contact, at: float) -> Told:
    ago_s = round(max(0.0, at - contact.at), 3)
    return Told(contact.agent, contact.subject, ago_s, contact.state)


def _read(answer: bytes) -> list[Told] | None:
    """Read another server's answer; None for what is none."""
    match _unpacked(answer):
        case [1, list(rows)]:
            return [Told(*row) for row in rows if _is_told(row)]
        case _:
            return None


def _is_told(row: object) -> bool:
    match row:
        case [str(), str(), float(), state]:
            return state in STATES
        case _:
            return False


def _unpacked(data: bytes) -> object:
    try:
        return msgpack.unpackb(data)
    except (ValueError, TypeError, msgpack.UnpackException):
        return None


def _merged(told: dict[str, list[Told]]) -> list[ContactView]:
    """Put what all servers tell of a pair together, the newest pair first."""
    pairs: dict[tuple[str, str], list[ToldView]] = {}
    for server, each in told.items():
        for one in each:
            view: ToldView = {"server": server, "ago_s": one.ago_s, "state": one.state}
            pairs.setdefault((one.agent, one.subject), []).append(view)
    views: Iterable[ContactView] = (
        {"agent": agent, "subject": subject, "told": sorted(each, key=_age)}
        for (agent, subject), each in pairs.items()
    )
    return sorted(views, key=lambda view: _age(view["told"][0]))


def _age(view: ToldView) -> float:
    return view["ago_s"]
