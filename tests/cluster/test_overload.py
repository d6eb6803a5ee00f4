"""More comes in than can be served: who waits, who is served, and what is counted.

The responder is stopped while datagrams pile up in its socket, and then goes on: what it does with
them depends on no other load of the machine. Answers are in the order in which they came.
"""

import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.lab import execute, program
from support.replica import map_register
from support.sources import Sources, address, prefix, write_peers
from support.supervised import Server
from support.tables import request
from wgmap.lisp.codec import decode
from wgmap.lisp.messages import MapNotify, MapReply
from wgmap_chaos.lab.observation import admin_get

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
PEERS = 40
QUIET_S = 1.5


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path, replica="wgmap_cluster.replica")
    try:
        made.ready()
        file = write_peers(tmp_path / "peers", PEERS)
        done = execute(
            program("wgmap"), "--socket", str(tmp_path / "admin.sock"), "peer", "import", str(file)
        )
        assert done.returncode == 0, done.stderr
        yield made
    finally:
        made.close()


@pytest.fixture
def sources(server: Server) -> Iterator[Sources]:
    with Sources(server.address) as opened:
        for number in range(PEERS):
            opened.send(address(number), register(number, 1))
        assert {to for to, _ in opened.heard(QUIET_S)} == set(map(address, range(PEERS)))
        yield opened


def register(number: int, nonce: int, ttl: int = 60) -> bytes:
    return map_register(nonce, prefix(number), at=address(number), ttl=ttl)


def counted(server: Server) -> Counter[str]:
    """Return what the responder counted; it tells every second, and was quiet for longer."""
    view = admin_get(server.config.with_name("admin.sock"), "/v1/counters")
    assert view is not None
    (responder,) = view["responders"]
    return Counter(responder)


class Piled:
    """What was sent while the responder stood still."""

    def __init__(self, server: Server) -> None:
        self._pid = server.pids()["responder"]
        os.kill(self._pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self._pid, signal.SIGCONT)


def test_who_asks_once_does_not_wait_for_a_flood_of_another(
    server: Server, sources: Sources
) -> None:
    flood, honest, sent = address(1), [address(n) for n in (2, 3, 4)], 4000
    piled = Piled(server)
    for _ in range(sent):
        sources.send(flood, request("10.0.0.7/32"))
    for one in honest:
        sources.send(one, request("10.0.0.7/32"))
    piled.go_on()
    order = [to for to, data in sources.heard(QUIET_S) if isinstance(decode(data), MapReply)]
    places = [order.index(one) for one in honest]
    assert max(places) < sent / 10, f"served behind {max(places)} of a flood"
    counters = counted(server)
    answered = order.count(flood)
    shed = counters["shed.lookup"] + counters["shed.late"]
    assert shed == sent - answered, "each is answered or counted"
    assert counters["shed.lookup"] > sent / 2
    assert counters["shed.register"] == counters["shed.repetition"] == 0


def test_lookups_come_before_new_registers_and_refreshes(server: Server, sources: Sources) -> None:
    """Which of the later two is served first is no order of answers: one waits for its commit.

    That order is shown where it is made, in tests/unit/responder/test_backlog.py.
    """
    # Those of the first turns are served before anything better is there.
    piled = Piled(server)
    for kind in ("refresh", "register", "lookup"):
        for number in range(PEERS):
            for again in range(10):
                sources.send(address(number), datagram(kind, number, again))
    piled.go_on()
    places: dict[str, list[int]] = {"lookup": [], "register": [], "refresh": []}
    heard = [decode(data) for _, data in sources.heard(QUIET_S)]
    for place, message in enumerate(heard):
        if isinstance(message, MapNotify):
            places["register"].append(place)
        elif isinstance(message, MapReply):
            places["refresh" if message.nonce & 1 << 63 else "lookup"].append(place)
    middle = {kind: sorted(found)[len(found) // 2] for kind, found in places.items()}
    assert middle["lookup"] < min(middle["register"], middle["refresh"]), middle
    counters = counted(server)
    late = counters["shed.late"]  # on a machine that has much else to do
    assert 20 * PEERS - len(places["lookup"]) - len(places["refresh"]) <= late
    assert len(places["register"]) >= PEERS - late, "of several of one peer the newest counts"
    assert not any(counters[f"shed.{kind}"] for kind in ("lookup", "register", "repetition"))


def datagram(kind: str, number: int, again: int) -> bytes:
    if kind == "register":
        return register(number, 2 + again, ttl=60 + again)
    refresh = kind == "refresh"
    nonce = (1 << 63 if refresh else 0) | number << 8 | again
    return request("10.0.0.7/32", nonce=nonce, refresh=refresh)


def test_every_class_counts_what_it_sheds(server: Server, sources: Sources) -> None:
    flood, sent = address(5), 2000
    piled = Piled(server)
    for again in range(sent):
        sources.send(flood, datagram("refresh", 5, again % 256))
        sources.send(flood, register(5, 1))  # known: a repetition as well
        sources.send(flood, register(5, 2 + again))
    sources.send(address(6), request("10.0.0.7/32"))
    piled.go_on()
    first = next(to for to, data in sources.heard(QUIET_S) if isinstance(decode(data), MapReply))
    refreshed = [to for to, _ in sources.heard(QUIET_S)]
    assert address(6) in (first, *refreshed)
    counters = counted(server)
    assert counters["shed.lookup"] == 0
    assert counters["shed.register"] > 0
    assert counters["shed.repetition"] > 0
    served = counters["refresh.received"] + counters["register.forwarded"] - PEERS
    assert served + counters["shed.register"] + counters["shed.repetition"] == 3 * sent
