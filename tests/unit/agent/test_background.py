"""Reading devices and saving state: in the background, coalesced, bounded."""

import asyncio
import errno
import threading

from support.eventually import eventually
from support.memory_device import MemoryDevice
from wgmap.errors import WgmapError
from wgmap.wg.device import Device, DeviceConfig, DeviceState, PeerConfig
from wgmap.wg.keys import PublicKey
from wgmap_agent.engine.types import ReadPeers, SavedState, Tunnel
from wgmap_agent.runner.readpeers import REST, PeerReader
from wgmap_agent.runner.saver import Saver
from wgmap_agent.runner.store import StateError


class Reads:
    """A reader of one device, with what it told."""

    def __init__(self, device: MemoryDevice) -> None:
        self.device = device
        self.done: list[float] = []
        self.failures: list[ReadPeers] = []
        self.states: list[tuple[ReadPeers, DeviceState]] = []
        devices: dict[Tunnel, Device] = {Tunnel.DATA: device}
        self.reader = PeerReader(devices, self._done, self._failed)

    def _done(self, asked: ReadPeers, state: DeviceState) -> None:
        self.done.append(asyncio.get_running_loop().time())
        self.states.append((asked, state))

    def _failed(self, action: ReadPeers, error: WgmapError) -> None:  # noqa: ARG002
        self.failures.append(action)

    async def until(self, number: int) -> None:
        await eventually(lambda: len(self.done) + len(self.failures) >= number)


async def test_what_is_asked_for_during_a_read_is_one_more_read() -> None:
    device = MemoryDevice()
    device.read_s = 0.005
    reads = Reads(device)
    reads.reader.want(ReadPeers(Tunnel.DATA))
    await asyncio.sleep(0)
    for _ in range(50):
        reads.reader.want(ReadPeers(Tunnel.DATA))
    await reads.until(2)
    assert device.reads == 2
    # The second one waited in proportion to what the first one took.
    assert reads.done[1] - reads.done[0] >= device.read_s * REST
    await reads.reader.close()


async def test_a_cheap_read_may_follow_soon() -> None:
    reads = Reads(MemoryDevice())
    for number in range(1, 6):
        reads.reader.want(ReadPeers(Tunnel.DATA))
        await reads.until(number)
    assert reads.done[-1] - reads.done[0] < 1.0
    await reads.reader.close()


async def test_a_failed_read_is_told() -> None:
    device = MemoryDevice()
    device.refuses = errno.ENODEV
    reads = Reads(device)
    reads.reader.want(ReadPeers(Tunnel.DATA))
    await reads.until(1)
    assert reads.failures == [ReadPeers(Tunnel.DATA)]
    await reads.reader.close()


async def test_of_a_few_peers_what_is_said_of_them_is_read() -> None:
    first, second, third, fourth = (PublicKey(bytes([number] * 32)) for number in range(1, 5))
    device = MemoryDevice()
    device.read_s = 0.005
    for key in (first, second, third):
        await device.configure(DeviceConfig(peers=(PeerConfig(key, keepalive_s=7),)))
    reads = Reads(device)
    reads.reader.want(ReadPeers(Tunnel.DATA, frozenset({first, fourth})))
    await eventually(lambda: device.reads == 1)
    for keys in ({second}, {third}):
        reads.reader.want(ReadPeers(Tunnel.DATA, frozenset(keys)))
    await reads.until(2)
    (asked, state), (both, later) = reads.states
    assert asked.keys == frozenset({first, fourth})
    assert state.peers == {first: device.peers[first]}  # the other one is not there
    assert both.keys == frozenset({second, third})
    assert later.peers.keys() == {second, third}
    reads.reader.want(ReadPeers(Tunnel.DATA, frozenset({first})))
    reads.reader.want(ReadPeers(Tunnel.DATA))
    reads.reader.want(ReadPeers(Tunnel.DATA, frozenset({second})))
    await reads.until(3)
    assert reads.states[2][0] == ReadPeers(Tunnel.DATA)
    assert reads.states[2][1].peers.keys() == {first, second, third}
    await reads.reader.close()


async def test_the_newest_state_wins_and_the_loop_is_never_blocked() -> None:
    gate = threading.Event()
    saved: list[int] = []

    def save(state: SavedState) -> None:
        assert gate.wait(5)
        saved.append(state.nonce)

    saver = Saver(save, _unexpected)
    saver(SavedState(1))
    await asyncio.sleep(0)
    for nonce in (2, 3, 4):
        saver(SavedState(nonce))
    gate.set()
    await saver.close()
    assert saved == [1, 4]


async def test_a_disk_that_refuses_is_told_and_the_next_state_is_tried() -> None:
    saved: list[int] = []
    failures: list[SavedState] = []

    def save(state: SavedState) -> None:
        if state.nonce == 1:
            raise StateError("full")
        saved.append(state.nonce)

    saver = Saver(save, lambda state, _: failures.append(state))
    saver(SavedState(1))
    await saver.close()
    assert failures == [SavedState(1)]
    saver(SavedState(2))
    await saver.close()
    assert saved == [2]


def _unexpected(state: SavedState, error: WgmapError) -> None:
    raise AssertionError(error)
