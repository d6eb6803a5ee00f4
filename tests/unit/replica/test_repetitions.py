"""A register that is known to the byte is answered as one that is read: whatever has happened."""

import asyncio
import ipaddress
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from support.fsm import ORIGIN, Driver, address_of, enrol, key, prefix
from support.log import MemoryLog
from support.replica import map_register
from wgmap.addresses import IPAddress
from wgmap_cluster.feed import Answer, Forward
from wgmap_cluster.fsm.commands import Advance, Command, Expire, Revoke, Seen, SetPeer
from wgmap_cluster.replica import repetitions
from wgmap_cluster.replica.core import Core
from wgmap_cluster.replica.proposing import Proposer
from wgmap_cluster.replica.registrations import Registrar
from wgmap_cluster.replica.repetitions import Repetitions

RLOC = "192.0.2.11"
ENROLLED = ("10.66.1.0/24", "fd66::1/128")


class Forgetful(Repetitions):
    """Knows nothing: every register is read."""

    def find(self, *_: Any) -> None:
        return None


class Bench:
    """Two registrars over one machine: one that knows registers, and one that reads them all."""

    def __init__(self, spawn: Callable[[Any], object]) -> None:
        self.driver = Driver()
        self.log = MemoryLog(self.driver.machine)
        self.log.commands = self.driver.log
        self.outer = ipaddress.ip_address(RLOC)
        self.looks = 0  # at the device
        self.seen_there: IPAddress | None = None  # by the last reading, where that is older
        self.fresh = True
        self.cores, self.registrars = [], []
        self.seen: list[list[str]] = [[], []]
        for seen in self.seen:
            core = Core(self.driver.machine, self.log, Proposer("ms1", self.log), spawn)
            registrar = Registrar(core, outer=self, fresh=lambda: self.fresh, seen=seen.append)
            self.cores.append(core)
            self.registrars.append(registrar)
        self.registrars[1]._repetitions = Forgetful()

    async def is_outer(self, _: IPAddress, rloc: IPAddress) -> bool:
        await asyncio.sleep(0)
        self.looks += 1
        return rloc == self.outer

    def last_outer(self, _: IPAddress) -> IPAddress | None:
        return self.outer if self.seen_there is None else self.seen_there

    async def told(self, which: int, datagram: bytes, number: int = 1) -> list[Answer]:
        """Give a register of an agent to one of them; return the answer."""
        answers: list[Answer] = []
        registrar = self.registrars[which]
        source = str(ipaddress.ip_address(address_of(key(number)))), 4342
        registrar.handle(Forward(source, datagram), answers.append)
        while registrar.in_flight:  # noqa: ASYNC110  # what is waited for has no event
            await asyncio.sleep(0)
        return answers

    def known(self) -> int:
        return len(self.registrars[0]._repetitions)


def setting(**values: Any) -> SetPeer:
    return SetPeer(name="a1", origin=ORIGIN, **values)


COMMANDS: list[Command] = [
    enrol("a2", 2, "10.66.1.128/25"),  # inside: what a1 has there goes
    enrol("a3", 3, "10.67.0.0/16"),
    setting(endpoint_allow=(prefix("192.0.2.0/24"),)),
    setting(endpoint_allow=()),
    setting(prefixes=(prefix(ENROLLED[0]),)),
    setting(prefixes=tuple(map(prefix, ENROLLED))),
    setting(new_name="b1"),
    Revoke("a1", ORIGIN),
    Advance(100.0),
    Seen(("a1",)),
    Expire(1e6, ("a1",)),
]
REGISTERS = [
    map_register(nonce, *where, at=at, ttl=ttl)
    for nonce in (5, 6)
    for where in (ENROLLED, ("10.66.1.200/32",))
    for at in (RLOC, "192.0.2.12")
    for ttl in (60, 0)
]
steps = st.one_of(
    st.sampled_from(COMMANDS),
    st.sampled_from(REGISTERS),
    st.sampled_from([True, False]),  # the lease
    st.sampled_from([RLOC, "192.0.2.12"]),  # where the tunnel comes from
)


# A newer one of the same content came by another server.
@example([REGISTERS[0], REGISTERS[8]])
# What the operator allowed he takes back, and the tunnel is elsewhere.
@example([COMMANDS[2], "192.0.2.12", COMMANDS[3]])
@settings(max_examples=150, deadline=None)
@given(st.lists(steps, max_size=12))
def test_both_say_and_count_the_same(plan: list[Command | bytes | bool | str]) -> None:
    async def run() -> None:
        async with asyncio.TaskGroup() as group:
            bench = Bench(group.create_task)
            bench.driver.done(enrol("a1", 1, *ENROLLED))
            await bench.told(0, REGISTERS[0])
            for step in [*plan, True]:
                await _do(bench, step)
                await _same(bench, REGISTERS[0])
            for register in (one for one in plan if isinstance(one, bytes)):
                await _same(bench, register)

    asyncio.run(run())


async def _do(bench: Bench, step: Command | bytes | bool | str) -> None:
    if isinstance(step, bool):
        bench.fresh = step
    elif isinstance(step, str):
        bench.outer = ipaddress.ip_address(step)
    elif isinstance(step, bytes):
        await bench.told(1, step)  # as by another server
    else:
        bench.driver.apply(step)


async def _same(bench: Bench, register: bytes) -> None:
    """Give it to both, often enough that it would be known; only the first may commit it."""
    await bench.told(0, register)
    before = [dict(core.counters) for core in bench.cores]
    for _ in range(3):
        answers = [await bench.told(which, register) for which in (0, 1)]
        assert answers[0] == answers[1], [dict(c.counters) for c in bench.cores]
    grown = [
        {name: count - old.get(name, 0) for name, count in core.counters.items()}
        for core, old in zip(bench.cores, before, strict=True)
    ]
    changed = [{name: by for name, by in one.items() if by} for one in grown]
    assert changed[0] == changed[1]


async def test_what_is_repeated_to_the_byte_is_known_and_seen() -> None:
    async with asyncio.TaskGroup() as group:
        bench = Bench(group.create_task)
        bench.driver.done(enrol("a1", 1, *ENROLLED))
        for count in range(4):
            assert len(await bench.told(0, REGISTERS[0])) == 1
            assert bench.known() == (count > 0), "the first one was new"
        assert bench.seen[0] == 3 * ["a1"]
        assert len(bench.log.commands) == 3, "founded, enrolled, registered"


async def test_a_tunnel_that_moved_is_looked_at_again() -> None:
    """The same bytes: but the address is not the tunnel's any more."""
    async with asyncio.TaskGroup() as group:
        bench = Bench(group.create_task)
        bench.driver.done(enrol("a1", 1, *ENROLLED))
        for _ in range(3):
            assert await bench.told(0, REGISTERS[0])
        bench.outer = ipaddress.ip_address("198.51.100.1")
        assert await bench.told(0, REGISTERS[0]) == []
        assert bench.cores[0].counters["register.refused.no_locator"] == 1


async def test_who_repeats_itself_costs_no_look_at_the_device() -> None:
    async with asyncio.TaskGroup() as group:
        bench = Bench(group.create_task)
        bench.driver.done(enrol("a1", 1, *ENROLLED))
        for _ in range(2):
            assert await bench.told(0, REGISTERS[0])
        looks = bench.looks
        for _ in range(5):
            assert await bench.told(0, REGISTERS[0])
        assert bench.looks == looks
        # A reading from before the move is believed: who moves says so with another register.
        bench.seen_there, bench.outer = bench.outer, ipaddress.ip_address("198.51.100.1")
        assert await bench.told(0, REGISTERS[0])
        assert bench.looks == looks
        assert await bench.told(0, map_register(9, *ENROLLED, at="198.51.100.1"))
        assert bench.looks > looks


async def test_a_move_is_judged_by_a_look_whatever_was_seen_before() -> None:
    """Nobody is aimed at where a tunnel was: only a repetition may be that old."""
    async with asyncio.TaskGroup() as group:
        bench = Bench(group.create_task)
        bench.driver.done(enrol("a1", 1, *ENROLLED))
        bench.seen_there = ipaddress.ip_address("203.0.113.9")
        assert await bench.told(0, map_register(5, *ENROLLED, at="203.0.113.9")) == []
        assert bench.cores[0].counters["register.refused.no_locator"] == 1


async def test_what_is_known_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repetitions, "MAX_KNOWN", 2)
    async with asyncio.TaskGroup() as group:
        bench = Bench(group.create_task)
        for number in range(1, 5):
            eid = f"10.66.{number}.0/24"
            bench.driver.done(enrol(f"a{number}", number, eid))
            for _ in range(3):
                assert await bench.told(0, map_register(1, eid, at=RLOC), number)
            assert bench.known() == min(number, 2)
