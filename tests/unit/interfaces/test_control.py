"""The control interface follows the table of peers."""

import asyncio
import contextlib
import errno
import ipaddress
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from ipaddress import IPv6Address
from pathlib import Path
from types import MappingProxyType

import pytest

from support.eventually import eventually
from support.memory_device import MemoryDevice
from wgmap import clock
from wgmap.addresses import Endpoint, IPAddress, control_address, host_prefix
from wgmap.wg.device import DeviceConfig, DeviceError, PeerConfig
from wgmap.wg.keys import PublicKey
from wgmap_cluster.fsm.rows import PeerRow
from wgmap_cluster.interfaces import control, reading, saved
from wgmap_cluster.interfaces.control import ControlPeers
from wgmap_cluster.interfaces.plan import SILENT_S
from wgmap_cluster.interfaces.reading import DeviceReader

CONTROL = ipaddress.IPv6Network("fd77:676d:6170::/64")
HOME, AWAY, ELSEWHERE = (ipaddress.ip_address(f"192.0.2.{n}") for n in (11, 12, 13))


def key(number: int) -> PublicKey:
    return PublicKey(number.to_bytes(32, "big"))


def address(number: int) -> IPv6Address:
    return control_address(CONTROL, key(number))


def row(number: int) -> PeerRow:
    return PeerRow(bytes(key(number)), address(number).packed, 0, ())


@contextlib.asynccontextmanager
async def running(
    device: MemoryDevice,
    path: Path | None = None,
    table: Mapping[str, PeerRow] | None = MappingProxyType({}),
) -> AsyncIterator[ControlPeers]:
    peers = ControlPeers(device, path)
    task = asyncio.create_task(peers.run())
    if table is not None:
        peers.replace(table)
    try:
        yield peers
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def move(device: MemoryDevice, number: int, where: IPAddress) -> None:
    device.peers[key(number)] = replace(
        device.peers[key(number)], endpoint=Endpoint(where, 51822), last_handshake=1.0
    )


async def test_changes_reach_the_device_in_bounded_requests() -> None:
    device = MemoryDevice()
    async with running(device) as peers:
        peers.replace({f"p{n}": row(n) for n in range(1, 1202)})
        await peers.settled()
        assert len(device.peers) == 1201
        assert [len(request.peers) for request in device.log] == [500, 500, 201]
        peers.change("p1", None)
        peers.change("p2", row(2)._replace(revoked=True))
        await peers.settled()
        assert {key(1), key(2)} & device.peers.keys() == set()
        assert len(device.peers) == 1199


async def test_what_an_earlier_process_left_is_compared_not_flushed() -> None:
    device = MemoryDevice()
    async with running(device, table={"a": row(1), "b": row(2)}) as first:
        await first.settled()
    move(device, 1, HOME)
    device.log.clear()
    async with running(device, table={"a": row(1), "c": row(3)}) as second:
        await second.settled()
    assert device.peers.keys() == {key(1), key(3)}
    assert device.peers[key(1)].endpoint == Endpoint(HOME, 51822)
    assert key(1) not in {peer.key for request in device.log for peer in request.peers}


async def test_nothing_is_removed_before_the_table_is_known() -> None:
    device = MemoryDevice()
    await device.configure(DeviceConfig(peers=(PeerConfig(key(1)),)))
    async with running(device, table=None) as peers:
        peers.change("b", row(2))
        await asyncio.sleep(0)  # let it begin
        assert device.peers.keys() == {key(1)}
        peers.replace({"b": row(2)})
        await peers.settled()
        assert device.peers.keys() == {key(2)}


async def test_a_passing_refusal_is_tried_again() -> None:
    device = MemoryDevice()
    async with running(device) as peers:
        device.refuses = errno.ENOBUFS
        peers.change("a", row(1))
        await asyncio.sleep(0)  # let it fail at least once
        device.refuses = None
        await peers.settled()
        assert device.peers.keys() == {key(1)}


@pytest.mark.parametrize("code", [errno.ENODEV, errno.EINVAL])
async def test_a_lost_or_broken_device_ends_it(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    monkeypatch.setattr(control, "RETRY_S", 0.0)
    device = MemoryDevice()
    device.refuses = code
    peers = ControlPeers(device)
    peers.replace({})
    with pytest.raises(DeviceError) as caught:
        await peers.run()
    assert caught.value.errno == code


class TestOuterAddress:
    async def test_a_tunnel_that_just_moved_is_seen_where_it_is(self) -> None:
        device = MemoryDevice()
        async with running(device) as peers:
            peers.change("a", row(1))
            await peers.settled()
            assert await peers.outer_endpoint(address(1)) is None
            move(device, 1, HOME)
            assert await peers.is_outer(address(1), HOME)
            assert not await peers.is_outer(address(1), AWAY)
            move(device, 1, AWAY)
            assert await peers.is_outer(address(1), AWAY)
            assert await peers.outer_endpoint(address(1)) == Endpoint(AWAY, 51822)

    async def test_a_look_that_is_underway_says_yes_but_never_no(self) -> None:
        device = MemoryDevice()
        async with running(device, table={"a": row(1), "b": row(2)}) as peers:
            await peers.settled()
            move(device, 1, HOME)
            move(device, 2, HOME)
            device.read_s = 0.05
            before = device.reads
            first = asyncio.create_task(peers.outer_endpoint(address(1)))
            await eventually(lambda: device.reads == before + 1)
            move(device, 2, AWAY)  # the look has passed it
            assert await peers.is_outer(address(1), HOME)
            assert device.reads == before + 1
            moved, lie = await asyncio.gather(
                peers.is_outer(address(2), AWAY), peers.is_outer(address(2), ELSEWHERE)
            )
            assert (moved, lie) == (True, False)
            assert device.reads == before + 2, "they had a later look, one together"
            assert (await first) is not None

    async def test_a_stranger_has_none(self) -> None:
        async with running(MemoryDevice()) as peers:
            assert not await peers.is_outer(address(7), HOME)

    async def test_who_repeats_itself_is_seen_where_the_last_reading_saw_it(self) -> None:
        device = MemoryDevice()
        async with running(device) as peers:
            peers.change("a", row(1))
            await peers.settled()
            move(device, 1, HOME)
            assert peers.last_outer(address(1)) is None  # nobody has looked yet
            await eventually(lambda: peers.last_outer(address(1)) == HOME)
            move(device, 1, AWAY)
            reads = device.reads
            assert peers.last_outer(address(1)) == HOME
            assert device.reads == reads  # that is not worth a reading
            assert await peers.is_outer(address(1), AWAY)
            assert peers.last_outer(address(1)) == AWAY

    async def test_a_revoked_peer_has_no_outer_address(self) -> None:
        device = MemoryDevice()
        async with running(device) as peers:
            peers.change("a", row(1))
            await peers.settled()
            move(device, 1, HOME)
            assert await peers.is_outer(address(1), HOME)
            peers.change("a", None)
            assert not await peers.is_outer(address(1), HOME)


async def test_a_silent_peer_is_made_anew_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "CHECK_S", 0.01)
    monkeypatch.setattr(reading, "MAX_PAUSE_S", 0.01)
    now = 1000.0
    monkeypatch.setattr(clock, "now", lambda: now)
    device = MemoryDevice()
    async with running(device) as peers:
        peers.change("a", row(1))
        await peers.settled()
        move(device, 1, HOME)
        await eventually(lambda: device.reads > 2)
        device.log.clear()
        now += SILENT_S + 1  # as when the machine was suspended, maybe during a reading
        await eventually(lambda: bool(device.log))
        removed, added = device.log[0].peers
        assert removed == PeerConfig(key(1), remove=True)
        assert added.endpoint == Endpoint(HOME, 51822)
        now += 10.0
        assert await peers.is_outer(address(1), HOME)


def shook_hands(device: MemoryDevice, number: int) -> None:
    device.peers[key(number)] = replace(device.peers[key(number)], last_handshake=1e12)


async def test_reachable_counts_recent_handshakes_of_the_enrolled() -> None:
    device = MemoryDevice()
    async with running(device, table={"a": row(1), "b": row(2)}) as peers:
        await peers.settled()
        assert await peers.reachable() == 0
        await device.configure(DeviceConfig(peers=(PeerConfig(key(3)),)))
        for number in (2, 3):
            shook_hands(device, number)
        assert await ControlPeers(device).reachable() == 0, "nobody is enrolled"
        await eventually_counts(peers, 1)


async def test_who_was_removed_and_added_again_is_reachable_only_after_another_handshake() -> None:
    """As while a cluster is restored: an older reading must not tell that agents are back."""
    device = MemoryDevice()
    async with running(device, table={"a": row(1)}) as peers:
        await peers.settled()
        shook_hands(device, 1)
        await eventually_counts(peers, 1)
        peers.replace({})
        await peers.settled()
        peers.replace({"a": row(1)})
        await peers.settled()
        assert await peers.reachable() == 0


async def eventually_counts(peers: ControlPeers, count: int) -> None:
    async with asyncio.timeout(5.0):
        while await peers.reachable() != count:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


class TestReader:
    async def test_those_who_ask_together_share_a_reading_that_begins_after_them(self) -> None:
        device = MemoryDevice()
        device.read_s = 0.02
        reader = DeviceReader(device.read, interval_s=0.0)
        first = [asyncio.create_task(reader.fresh()) for _ in range(10)]
        await eventually(lambda: device.reads == 1)  # it has begun, its answer is settled
        await device.configure(DeviceConfig(peers=(PeerConfig(key(1)),)))
        late = await reader.fresh()
        assert key(1) in late.peers
        assert device.reads == 2
        assert all(key(1) not in state.peers for state in await asyncio.gather(*first))

    async def test_readings_take_at_most_half_of_the_time(self) -> None:
        device = MemoryDevice()
        device.read_s = 0.02
        reader = DeviceReader(device.read, interval_s=0.0)
        loop = asyncio.get_running_loop()
        began = loop.time()
        for _ in range(3):
            await reader.fresh()
        assert loop.time() - began >= (3 + 2) * 0.02

    async def test_what_is_underway_is_waited_for_and_not_begun(self) -> None:
        device = MemoryDevice()
        device.read_s = 0.02
        reader = DeviceReader(device.read, interval_s=0.0)
        await reader.underway()
        assert device.reads == 0
        first = asyncio.create_task(reader.fresh())
        await eventually(lambda: device.reads == 1)
        await reader.underway()
        assert first.done()
        assert reader.recent(1.0) is first.result()
        device.refuses = errno.ENOBUFS
        failing = asyncio.create_task(reader.fresh())
        await reader.underway()  # whose error is told to who asked
        with pytest.raises(DeviceError):
            await failing

    async def test_an_error_reaches_all_who_asked_and_is_over(self) -> None:
        device = MemoryDevice()
        reader = DeviceReader(device.read, interval_s=0.0)
        device.refuses = errno.ENOBUFS
        results = await asyncio.gather(reader.fresh(), reader.fresh(), return_exceptions=True)
        assert [type(result) for result in results] == [DeviceError, DeviceError]
        device.refuses = None
        assert (await reader.fresh()).peers == {}

    async def test_who_gives_up_does_not_take_the_reading_along(self) -> None:
        device = MemoryDevice()
        device.read_s = 0.01
        reader = DeviceReader(device.read, interval_s=0.0)
        impatient = asyncio.create_task(reader.fresh())
        patient = asyncio.create_task(reader.fresh())
        await eventually(lambda: device.reads == 1)
        impatient.cancel()
        assert (await patient).peers == {}


class TestAfterReboot:
    async def test_peers_are_called_where_they_were(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(control, "CHECK_S", 0.02)
        path = tmp_path / "control-endpoints"
        device = MemoryDevice()
        async with running(device, path, {"a": row(1), "b": row(2)}) as before:
            await before.settled()
            move(device, 1, HOME)
            await eventually(path.exists)
        rebooted = MemoryDevice()
        table = {"a": row(1), "b": row(2), "c": row(3)}
        async with running(rebooted, path, table) as after:
            await after.settled()
            calls = [peer for peer in rebooted.log[0].peers if peer.endpoint is not None]
            assert calls == [
                PeerConfig(key(1), Endpoint(HOME, 51822), (host_prefix(address(1)),), 25)
            ]
            await eventually(lambda: rebooted.peers[key(1)].keepalive_s == 0)
            assert rebooted.peers[key(1)].endpoint == Endpoint(HOME, 51822)

    async def test_a_second_reboot_soon_after_finds_the_endpoints_as_well(
        self, tmp_path: Path
    ) -> None:
        path = tmp_path / "control-endpoints"
        where = {key(1): Endpoint(HOME, 51822)}
        saved.save(path, {**where, key(9): Endpoint(HOME, 51999)})  # that one was revoked since
        async with running(MemoryDevice(), path, {"a": row(1)}) as peers:
            await peers.settled()
        assert saved.load(path) == where

    async def test_a_restarted_daemon_calls_nobody(self, tmp_path: Path) -> None:
        path = tmp_path / "control-endpoints"
        saved.save(path, {key(1): Endpoint(HOME, 51822)})
        device = MemoryDevice()
        await device.configure(
            DeviceConfig(peers=(PeerConfig(key(1), allowed_ips=(host_prefix(address(1)),)),))
        )
        device.log.clear()
        async with running(device, path, {"a": row(1)}) as peers:
            await peers.settled()
        assert device.log == []

    async def test_a_spoilt_file_is_a_missing_hint(self, tmp_path: Path) -> None:
        path = tmp_path / "control-endpoints"
        path.write_bytes(b"\xff\x00 nonsense\n" + f"{key(1)} 192.0.2.11:51822\n".encode())
        assert saved.load(path) == {key(1): Endpoint(HOME, 51822)}
        assert saved.load(tmp_path / "none") == {}

    async def test_a_full_disk_stops_nothing(self, tmp_path: Path) -> None:
        device = MemoryDevice()
        async with running(device, tmp_path / "no" / "folder") as peers:
            peers.change("a", row(1))
            await peers.settled()
            assert device.peers.keys() == {key(1)}
