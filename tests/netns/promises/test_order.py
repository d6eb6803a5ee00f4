"""Registers of a peer take effect in the order of their nonces, whichever way they come."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from support.lab import Lab, wait_until
from support.voice import Voice, ports, silenced
from wgmap.clock import now
from wgmap.lisp.messages import MapNotify
from wgmap_chaos.lab.inventory import AgentEntry

pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def silent(lab: Lab) -> Iterator[AgentEntry]:
    with silenced(lab, "a4") as agent:
        yield agent


def served(lab: Lab, voice: Voice, agent: AgentEntry) -> list[set[int]]:
    """Return the ports that each server answers with, as of now (a refresh)."""
    answers = []
    for server in lab.file.servers:
        reply = wait_until(
            lambda: voice.ask(server, agent.eids[0], refresh=True),  # noqa: B023
            f"{server.name} answers a refresh",
        )
        answers.append(ports(reply))
    return answers


def test_a_late_and_a_repeated_register(lab: Lab, silent: AgentEntry, base: int) -> None:
    first, second, third = lab.file.servers
    with lab.underlay(delay_ms=20), Voice(silent) as voice:
        five, six, seven, eight = (
            voice.register_bytes(base + number, port=50_000 + number) for number in (5, 6, 7, 8)
        )
        # 5 committed, 6 delayed, 5 repeated on another server, then 6 arrives.
        committed = voice.register(first, five)
        repeated = voice.register(second, five)
        assert committed is not None
        assert repeated is not None
        assert (committed.nonce, ports(committed)) == (base + 5, {50_005})
        assert (repeated.nonce, repeated.records) == (committed.nonce, committed.records)
        late = voice.register(third, six)
        assert late is not None
        assert (late.nonce, ports(late)) == (base + 6, {50_006})
        assert served(lab, voice, silent) == 3 * [{50_006}]
        # 8, then 7: the older one changes nothing, and is told what stands.
        assert ports(voice.register(first, eight)) == {50_008}
        older = voice.register(second, seven)
        assert older is not None
        assert (older.nonce, ports(older)) == (base + 8, {50_008})
        assert served(lab, voice, silent) == 3 * [{50_008}]


def test_registers_in_any_order_over_all_servers_end_with_the_greatest(
    lab: Lab, silent: AgentEntry, base: int
) -> None:
    rng = random.Random(4)
    with lab.underlay(delay_ms=10), Voice(silent) as voice:
        for turn in range(5):
            numbers = list(range(turn * 20, turn * 20 + 20))
            last = numbers[-1]
            rng.shuffle(numbers)
            for number in numbers:
                datagram = voice.register_bytes(base + number, port=40_000 + number)
                for server in rng.choices(lab.file.servers, k=2):
                    voice.send(server, datagram)
            greatest = voice.register_bytes(base + last, port=40_000 + last)
            assert ports(voice.register(rng.choice(lab.file.servers), greatest)) == {40_000 + last}
            assert served(lab, voice, silent) == 3 * [{40_000 + last}]


@contextmanager
def unlike_ways(lab: Lab, agent: AgentEntry) -> Iterator[None]:
    """Put the servers at unlike distances from an agent: 10, 50 and 130 ms one way."""
    ways = dict(zip((server.name for server in lab.file.servers), (0, 40, 120), strict=True))
    with lab.underlay(delay_ms=10):
        for name, extra_ms in ways.items():
            lab.chaos("divert", agent.name, name, str(extra_ms))
        try:
            yield
        finally:
            for name in ways:
                lab.chaos("divert", agent.name, name, "0")


def test_registers_that_race_over_ways_of_unlike_length(
    lab: Lab, silent: AgentEntry, base: int
) -> None:
    """The last ones are there first: each is acknowledged as itself, or told what is newer."""
    count, told = 90, dict[int, set[int]]()
    with unlike_ways(lab, silent), Voice(silent) as voice:
        for number in range(count):
            datagram = voice.register_bytes(base + number, port=40_000 + number)
            # The newer, the nearer: so the order of their coming is nearly the reverse.
            voice.send(lab.file.servers[2 - number * 3 // count], datagram)
        for _, message in voice.heard(now() + 1.5):
            if isinstance(message, MapNotify) and message.nonce >= base:
                told.setdefault(message.nonce - base, set()).update(ports(message))
        last = voice.register_bytes(base + count - 1, port=40_000 + count - 1)
        for server in reversed(lab.file.servers):
            assert ports(voice.register(server, last)) == {40_000 + count - 1}
        assert served(lab, voice, silent) == 3 * [{40_000 + count - 1}]
    assert count - 1 in told, "the newest was there first"
    assert all(found == {40_000 + number} for number, found in told.items()), told


def test_a_version_that_one_server_served_never_goes_back(
    lab: Lab, silent: AgentEntry, base: int
) -> None:
    newest = dict.fromkeys((server.name for server in lab.file.servers), 0)
    start = now()
    with Voice(silent) as sender, Voice(silent) as asker:
        for number in range(60):
            datagram = sender.register_bytes(base + number, port=30_000 + number)
            for server in lab.file.servers:
                sender.send(server, datagram)
            for server in lab.file.servers:
                reply = asker.ask(server, silent.eids[0])
                seen = max((port for port in ports(reply) if port >= 30_000), default=0)
                if seen < 40_000:  # one of the test before, until the first of these came
                    assert seen >= newest[server.name], f"{server.name} went back"
                    newest[server.name] = seen
    assert min(newest.values()) > 30_000
    assert now() - start < 60


def test_an_agent_that_lost_its_counter_recovers_by_itself(lab: Lab, base: int) -> None:
    agent = lab.file.agent("a3")
    with silenced(lab, "a3"), Voice(agent) as voice:
        assert voice.register(lab.file.servers[0], voice.register_bytes(base + 1, port=30_001))
        (agent.state_dir / "state").unlink()
    # It is registered again, with its own endpoint: ``silenced`` has waited for the first.
    endpoints = {at["port"] for at in lab.resolve(agent.eids[0])["locators"]}
    assert endpoints == {51820}
    counters = lab.agent_status(lab.file.agent("a3"))["counters"]
    assert counters["register.counter_recovered"] >= 1
