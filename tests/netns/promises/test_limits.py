"""A flood from one enrolled agent slows the others by no more than a small factor.

The machine is the same for all: so what the others see at the flooded server is compared with what
they see, in the same moments, at another server while that one is flooded. The flood costs the
machine the same; only the server under test differs. A process that always has work waits for its
turn where all processors are busy, which the control does not see: so the factor is far smaller on
a quiet machine, and the usual run leaves it out (``tests/cluster/test_overload.py`` has the order
of what is served, whatever the machine does).
"""

import logging
import os
import statistics
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from support.lab import Lab, wait_until
from support.voice import Voice, fresh_nonces, own, ports, silenced
from wgmap.addresses import host_prefix
from wgmap.clock import now
from wgmap.lisp.codec import encode
from wgmap.lisp.messages import Eid, MapRequest, RequestRecord
from wgmap_chaos.lab import observation
from wgmap_chaos.lab.inventory import AgentEntry, ServerEntry

_LOG = logging.getLogger(__name__)
LONG = bool(os.environ.get("WGMAP_LONG"))
pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.timeout(1200 if LONG else 240)]
TURNS = 6 if LONG else 2
TURN_S = 2.0
A_SECOND = (
    6000  # of the flood: three times what a peer may ask, a hundred times what it may register
)
BURST = 60
FACTOR = 15.0  # on a machine with far too much to do; 1 to 3 on a quiet one
MISSED = 0.02  # of the questions
Flood = Callable[[Voice, AgentEntry, int], bytes]


def lookup(_: Voice, agent: AgentEntry, number: int) -> bytes:
    return _request(agent, number, refresh=False)


def refresh(_: Voice, agent: AgentEntry, number: int) -> bytes:
    return _request(agent, number, refresh=True)


def _request(agent: AgentEntry, number: int, *, refresh: bool) -> bytes:
    records = (RequestRecord(Eid(own(agent)[0])),)
    return encode(MapRequest(1 << 40 | number, (agent.control,), records, smr_invoked=refresh))


def stranger(_: Voice, agent: AgentEntry, number: int) -> bytes:
    """Ask for another address each time: nothing is known of any."""
    target = host_prefix(
        type(agent.eids[0])(int(agent.eids[0]) & ~0xFFFF | 200 << 8 | number % 256)
    )
    return encode(MapRequest(1 << 40 | number, (agent.control,), (RequestRecord(Eid(target)),)))


def register(voice: Voice, _: AgentEntry, number: int) -> bytes:
    return voice.register_bytes(fresh_nonces() + number % 16_000, port=30_000 + number % 1000)


def garbage(_: Voice, __: AgentEntry, number: int) -> bytes:
    return bytes((0x10 if number % 2 else 0x30, 0xFF)) + os.urandom(400)


FLOODS: dict[str, Flood] = {
    "lookups": lookup,
    "questions for strangers": stranger,
    "registers": register,
    "refreshes": refresh,
    "garbage": garbage,
}


@dataclass
class Seen:
    """What an honest agent saw of a server."""

    lookups: list[float] = field(default_factory=list)  # seconds each took
    registers: list[float] = field(default_factory=list)
    missed: int = 0


@contextmanager
def flooding(
    lab: Lab, flooder: AgentEntry, server: ServerEntry, make: Flood
) -> Iterator[list[int]]:
    """Flood a server from one agent; the list gets how many were sent."""
    over, sent = threading.Event(), [0]

    def flood(voice: Voice) -> None:
        datagrams = [make(voice, flooder, number) for number in range(4096)]
        began = now()
        while not over.wait(max(0.0, began + sent[0] / A_SECOND - now())):
            for _ in range(BURST):
                voice.send(server, datagrams[sent[0] % 4096])
                sent[0] += 1

    with Voice(flooder) as voice:
        thread = threading.Thread(target=flood, args=(voice,))
        thread.start()
        try:
            yield sent
        finally:
            over.set()
            thread.join()


def honest(agent: AgentEntry, server: ServerEntry, seen: Seen, base: int) -> None:
    """Look up and register for a while, one after the other."""
    with Voice(agent) as voice:
        end, number = now() + TURN_S, 0
        while now() < end:
            number += 1
            began = now()
            asked = voice.ask(server, agent.eids[0], wait_s=0.5)
            seen.missed += asked is None
            if asked is not None:
                seen.lookups.append(now() - began)
            if number % 4:
                continue
            began = now()
            given = voice.register(server, voice.register_bytes(base + number), wait_s=0.5)
            seen.missed += given is None
            if given is not None:
                seen.registers.append(now() - began)


@pytest.mark.skipif(not LONG, reason="measures: make test-promises")
@pytest.mark.parametrize("kind", FLOODS)
def test_a_flood_slows_the_others_by_a_small_factor(lab: Lab, kind: str) -> None:
    target, elsewhere = (one for one in lab.file.servers if one.name != lab.status()["leader"])
    flooded, control = Seen(), Seen()
    with silenced(lab, "a3") as agent, silenced(lab, "a4") as flooder:
        for turn in range(TURNS):
            for server, seen in ((target, flooded), (elsewhere, control)):
                with flooding(lab, flooder, server, FLOODS[kind]) as sent:
                    wait_until(lambda: sent[0] > A_SECOND / 2, "the flood runs")
                    honest(agent, target, seen, fresh_nonces() + 4000 * turn)
    figures = {
        "lookups": (control.lookups, flooded.lookups),
        "registers": (control.registers, flooded.registers),
    }
    for what, (without, with_it) in figures.items():
        factor = statistics.median(with_it) / statistics.median(without)
        _LOG.info(
            "flood of %s: %s took %.1f ms, %.1f ms without: factor %.2f; %d answered, %d without",
            *(kind, what, 1e3 * statistics.median(with_it), 1e3 * statistics.median(without)),
            *(factor, len(with_it), len(without)),
        )
        assert factor < FACTOR, f"{what}: {factor:.1f}"
    _LOG.info("missed: %d, %d without", flooded.missed, control.missed)
    assert flooded.missed <= control.missed + 1 + MISSED * len(flooded.lookups)
    assert refused(target, kind), "the flood was beyond what one peer may ask"


def refused(server: ServerEntry, kind: str) -> int:
    """Return how much of such a flood a server has refused."""
    counted = observation.admin_get(server.admin_socket, "/v1/counters")
    assert counted is not None
    limited = {"registers": "register_limited"}.get(kind, "limited")
    return sum(one.get(f"refused.{limited}", 0) for one in counted["responders"])


def test_the_flooder_itself_is_served_within_its_limit(lab: Lab) -> None:
    server = lab.file.servers[0]
    with silenced(lab, "a4") as flooder:
        with flooding(lab, flooder, server, lookup) as sent:
            wait_until(lambda: sent[0] > A_SECOND, "the flood runs")
        with Voice(flooder) as voice:
            reply = wait_until(
                lambda: voice.ask(server, flooder.eids[0]), "it is answered once it is quiet"
            )
            assert ports(reply)
