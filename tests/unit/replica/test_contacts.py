"""Who was told of whom: from this server's responders, and from the other servers."""

import asyncio
from collections.abc import Awaitable, Callable

import msgpack
import pytest

from support.contacts import Responders
from support.memory_log import ClusterLog
from wgmap.clock import now
from wgmap_cluster.feed import Contact
from wgmap_cluster.fsm.machine import Machine
from wgmap_cluster.replica.contacts import Contacts, Wanted
from wgmap_cluster.replica.notes import ServerNote


def server(name: str, *contacts: Contact) -> tuple[ClusterLog, Contacts, Responders]:
    log, responders = ClusterLog(Machine()), Responders(*contacts)
    made = Contacts(name, log, responders)
    log.on_asked(made.answer)
    return log, made, responders


def joined(log: ClusterLog, name: str, answer: Callable[[bytes], Awaitable[bytes]] | None) -> None:
    log.hear(name, 1)
    if answer is not None:
        log.neighbours[name] = answer


async def test_each_server_knows_its_own_and_together_they_know_all() -> None:
    at = now()
    log, contacts, _ = server("ms1", Contact("a1", "a2", at - 5, "heard"))
    other, _, _ = server(
        "ms2", Contact("a1", "a2", at - 2, "waiting"), Contact("a3", "a1", at - 9, "unheard")
    )
    joined(log, "ms2", other.answer)
    joined(log, "ms3", None)
    view = await contacts.show(Wanted(most=10))
    assert (view["servers"], view["silent"]) == (["ms1", "ms2"], ["ms3"])
    pairs = [(one["agent"], one["subject"]) for one in view["contacts"]]
    assert pairs == [("a1", "a2"), ("a3", "a1")]
    both = view["contacts"][0]["told"]
    assert [(one["server"], one["state"]) for one in both] == [("ms2", "waiting"), ("ms1", "heard")]
    assert [one["ago_s"] >= least for one, least in zip(both, (2, 5), strict=True)] == [True, True]
    assert len((await contacts.show(Wanted(most=1)))["contacts"]) == 1
    between = await contacts.show(Wanted("a3", "a1", 10))
    assert [one["agent"] for one in between["contacts"]] == ["a3"]


async def test_a_server_that_is_older_is_not_asked_and_one_without_a_responder_is_silent() -> None:
    log, contacts, responders = server("ms1")
    other, _, others = server("ms2")
    joined(log, "ms2", other.answer)
    responders.known = others.known = None
    assert (await contacts.show(Wanted()))["silent"] == ["ms1", "ms2"]
    others.known = []
    assert (await contacts.show(Wanted()))["servers"] == ["ms2"]
    member = log.others["ms2"]
    note = ServerNote.decode(member.note)
    assert note is not None
    before = msgpack.packb(msgpack.unpackb(note.encode())[:7])
    log.others["ms2"] = type(member)("ms2", connected=True, note=before, heard_s=0.0)
    assert (await contacts.show(Wanted()))["silent"] == ["ms1", "ms2"], "it would break off"
    log.lose("ms2")
    assert (await contacts.show(Wanted()))["silent"] == ["ms1", "ms2"]


@pytest.mark.parametrize(
    "question",
    [
        b"",
        b"\xc1",
        msgpack.packb(7),
        msgpack.packb([2, "", "", 9]),
        msgpack.packb([1]),
        msgpack.packb([1, "n" * 64, "", 9]),
        msgpack.packb([1, "", "", 501]),
        msgpack.packb([1, "", "", -1]),
    ],
)
async def test_a_question_that_is_not_understood_has_an_empty_answer(question: bytes) -> None:
    log, _, _ = server("ms1")
    assert await log.answer(question) == b""


@pytest.mark.parametrize(
    ("answer", "silent"),
    [
        (b"", True),
        (b"\xc1", True),
        (msgpack.packb([2, []]), True),
        (msgpack.packb([1, [[1, 2], ["a1", "a2", 1.0, "?"], "x"]]), False),
    ],
)
async def test_an_answer_that_makes_no_sense_shows_nothing(answer: bytes, silent: bool) -> None:
    log, contacts, _ = server("ms1")

    async def nonsense(_question: bytes) -> bytes:
        await asyncio.sleep(0)
        return answer

    joined(log, "ms2", nonsense)
    view = await contacts.show(Wanted())
    assert (view["contacts"], "ms2" in view["silent"]) == ([], silent)
