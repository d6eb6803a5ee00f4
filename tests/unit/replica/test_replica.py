"""The replica as a whole, on a log in memory and a device in memory."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from support.eventually import eventually
from support.fsm import CONTROL, bootstrap, enrol, key, register
from support.log import MemoryLog
from support.memory_device import MemoryDevice
from support.replica import Client
from wgmap.clock import now
from wgmap.config import parse
from wgmap.wg.device import DeviceConfig, PeerConfig
from wgmap.wg.keys import PublicKey
from wgmap_cluster.config import ServerConfig
from wgmap_cluster.feed import SOCKET_NAME, ResponderNote
from wgmap_cluster.fsm import commands
from wgmap_cluster.fsm.machine import Machine
from wgmap_cluster.fsm.rows import Table
from wgmap_cluster.interfaces.control import ControlPeers
from wgmap_cluster.raft.interface import Member
from wgmap_cluster.replica import replica as module
from wgmap_cluster.replica import seen
from wgmap_cluster.replica.replica import Replica
from wgmap_cluster.replica.tunnels import Protected

CONFIG = """
[server]
name = "ms1"
state_dir = "{directory}"
staleness_s = 0.2
[overlay]
prefixes = ["10.66.0.0/16", "fd66::/64"]
[[bootstrap.server]]
name = "ms1"
mesh_key = "{mesh}"
control_key = "{control}"
endpoint = "192.0.2.1:51999"
mesh_address = "fd77:6d65::1"
control_address = "fd77:676d:6170::1"
"""
STRANGER = PublicKey(key(77))


class Whole:
    """A replica with what stands around it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        keys = {"mesh": PublicKey(key(201)), "control": PublicKey(key(221))}
        text = CONFIG.format(directory=directory, **keys)
        self.config = parse(text.encode(), ServerConfig, "test")
        self.machine = Machine()
        self.log = MemoryLog(self.machine)
        self.device = MemoryDevice()
        tunnels = Protected(ControlPeers(self.device), self.machine)
        self.replica = Replica(self.config, self.machine, self.log, tunnels)

    def before(self, *earlier: commands.Command) -> None:
        """Have these in the log when it starts."""
        self.log.commands += [commands.encode(each) for each in earlier]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self.replica.run())
            try:
                yield
            finally:
                task.cancel()


@pytest.fixture
def whole(tmp_path: Path) -> Whole:
    return Whole(tmp_path)


async def test_it_founds_the_cluster_from_its_configuration(whole: Whole) -> None:
    async with whole.running():
        await eventually(lambda: whole.machine.state.founded)
        state = whole.machine.state
        assert state.control_prefix == CONTROL
        assert [str(each) for each in state.overlay] == ["10.66.0.0/16", "fd66::/64"]
        row = state.servers["ms1"]
        assert (row.control_port, row.mesh_port) == (51999, 51821)
        assert row.mesh_key == key(201)


async def test_what_comes_while_it_ends_is_dropped(whole: Whole) -> None:
    """Else the register that a responder forwards just then ends it with a traceback."""
    begun: list[int] = []

    async def part() -> None:
        begun.append(1)

    async def ends() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            whole.replica.core.spawn(part())

    async with whole.running():
        await eventually(lambda: whole.machine.state.founded)
        whole.replica.core.spawn(part())
        whole.replica.core.spawn(ends())
        await eventually(lambda: begun == [1])
    assert begun == [1]


async def test_a_cluster_that_exists_is_left_alone(whole: Whole) -> None:
    whole.before(bootstrap())
    async with whole.running():
        await eventually(lambda: whole.log.barriers > 2)
        assert sorted(whole.machine.state.servers) == ["ms1", "ms2", "ms3"]
        assert len(whole.log.commands) == 1


async def test_tunnels_stay_as_they_are_until_it_has_caught_up(whole: Whole) -> None:
    left_over = DeviceConfig(peers=(PeerConfig(STRANGER, allowed_ips=()),))
    await whole.device.configure(left_over)
    whole.before(bootstrap(), enrol("a1", 1, "10.66.1.0/24"))
    whole.log.quorum = False
    async with whole.running():
        await eventually(lambda: whole.log.barriers > 3)
        assert whole.device.log == [left_over], "its table may be old: nothing is torn down"
        whole.log.quorum = True
        await eventually(lambda: list(whole.device.peers) == [key(1)])


async def test_a_revocation_takes_the_control_tunnel(whole: Whole) -> None:
    whole.before(bootstrap(), enrol("a1", 1, "10.66.1.0/24"), enrol("a2", 2, "10.66.2.0/24"))
    async with whole.running():
        await eventually(lambda: len(whole.device.peers) == 2)
        await whole.replica.operations().revoke_peer("a1", "root", "now")
        await eventually(lambda: list(whole.device.peers) == [key(2)])


async def test_the_lease_is_held_while_there_is_a_quorum(whole: Whole) -> None:
    async with whole.running():
        client = await Client.attach(whole.directory / SOCKET_NAME)
        await client.until(lambda: client.lease)
        assert client.lease <= now() + whole.config.server.staleness_s
        assert whole.replica.note().fresh
        whole.log.quorum = False
        await eventually(lambda: not whole.replica.lease.fresh())
        last = client.lease
        asked = whole.log.barriers
        await eventually(lambda: whole.log.barriers > asked + 2)
        assert client.lease == last < now()
        whole.log.quorum = True
        await client.until(lambda: client.lease > last)
        await client.close()


async def test_who_was_seen_is_told_to_the_log_even_if_it_takes_two_tries(
    whole: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seen, "PERIOD_S", 0.02)
    advance = commands.Advance(50.0)
    whole.before(bootstrap(), enrol("a1", 1, "10.66.1.0/24"), register(1, 1, "10.66.1.0/24"))
    whole.before(advance)
    async with whole.running():
        await eventually(whole.replica.lease.fresh)
        whole.log.quorum = False
        whole.replica.seen.add("a1")
        await eventually(lambda: whole.replica.core.counters["housekeeping.not_committed"] > 0)
        whole.log.quorum = True
        await eventually(lambda: whole.machine.state.registrations["a1"].seen == 50.0)


async def test_housekeeping_proposes_nothing_that_another_server_does_not_read_yet(
    whole: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seen, "PERIOD_S", 0.02)
    monkeypatch.setattr(commands, "VERSION", 2)
    monkeypatch.setitem(commands.SINCE, commands.Op.SEEN, 2)
    whole.before(bootstrap(), enrol("a1", 1, "10.66.1.0/24"), register(1, 1, "10.66.1.0/24"))
    whole.before(commands.Advance(50.0))
    whole.log.servers["ms2"] = Member("ms2", "[fd00::2]:4343")  # its note has never come
    async with whole.running():
        await eventually(whole.replica.lease.fresh)
        proposed = len(whole.log.commands)
        whole.replica.seen.add("a1")
        await eventually(lambda: whole.replica.core.counters["housekeeping.needs_upgrade"] > 1)
        assert len(whole.log.commands) == proposed
        del whole.log.servers["ms2"]
        await eventually(lambda: whole.machine.state.registrations["a1"].seen == 50.0)


async def test_an_operator_has_the_numbers_of_replica_log_and_responders(whole: Whole) -> None:
    whole.before(bootstrap())
    async with whole.running():
        client = await Client.attach(whole.directory / SOCKET_NAME)
        client.connection.send(ResponderNote({"index": 1, "request.received": 7}))
        operations = whole.replica.operations()
        told = {"index": 1, "request.received": 7}
        await eventually(lambda: told in operations.counters()["responders"])
        whole.replica.core.counters.count("register.received", 3)
        counters = operations.counters()
        assert counters["replica"]["register.received"] == 3
        assert counters["log"]["commit"] == len(whole.log.commands) > 0
        await client.close()


async def test_the_leader_moves_the_clock_and_ends_registrations(
    whole: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TICK_S", 0.02)
    monkeypatch.setattr("wgmap_cluster.fsm.registration.GRACE_TTLS", 0.005)
    whole.before(bootstrap(), enrol("a1", 1, "10.66.1.0/24"))
    whole.before(register(1, 1, "10.66.1.0/24", ttl=1))
    async with whole.running():
        client = await Client.attach(whole.directory / SOCKET_NAME)
        await client.until(lambda: client.tables[Table.MAPPINGS])
        await client.until(lambda: not client.tables[Table.MAPPINGS])
        assert 0.3 <= whole.machine.state.clock < 30
        await client.close()
