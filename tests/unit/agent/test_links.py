"""Underlay addresses: which count, in which order, and when a change of them is told."""

import asyncio
import ipaddress
from collections.abc import AsyncIterator

import pytest

from support.eventually import eventually
from wgmap.addresses import IPAddress
from wgmap.net.changes import Change, ChangeKind
from wgmap.net.netlink import AddressState
from wgmap_agent.runner import links
from wgmap_agent.runner.links import MAX_RLOCS, Rules, Settled, rlocs
from wgmap_agent.runner.lost import InterfaceLostError, Presence

RULES = Rules(
    frozenset({"wgm-tun", "wgm-ctl", "wgm-data"}),
    (ipaddress.ip_network("10.66.0.0/16"), ipaddress.ip_network("fd77::/64")),
)
TENTATIVE, DEPRECATED = 0x40, 0x20


def state(text: str, name: str = "eth0", scope: int = 0, flags: int = 0x80) -> AddressState:
    return AddressState(name, ipaddress.ip_interface(text), scope, flags)


def pick(*states: AddressState, preferred: tuple[str, ...] = (), down: str = "") -> list[str]:
    by_name: dict[str, list[AddressState]] = {}
    for one in states:
        by_name.setdefault(one.interface, []).append(one)
    sources: set[IPAddress] = {ipaddress.ip_address(text) for text in preferred}
    return [str(one) for one in rlocs(by_name, set(by_name) - {down}, sources, RULES)]


def test_only_settled_global_addresses_of_the_underlay_count() -> None:
    good = state("192.0.2.1/24")
    bad = (
        state("192.0.2.2/24", scope=253),
        state("2001:db8::2/64", flags=TENTATIVE),
        state("2001:db8::3/64", flags=DEPRECATED),
        state("127.0.0.1/8", "lo"),
        state("fe80::1/64"),
        state("10.66.1.1/32", "eth0"),
        state("fd77::9/128", "eth0"),
        state("198.51.100.1/24", "wgm-data"),
        state("203.0.113.1/24", "eth9"),
    )
    assert pick(good, *bad, down="eth9") == ["192.0.2.1"]


def test_the_order_is_preferred_then_ipv4_then_by_interface() -> None:
    states = (
        state("2001:db8::1/64", "eth0"),
        state("192.0.2.9/24", "eth1"),
        state("192.0.2.10/24", "eth0"),
        state("198.51.100.1/24", "eth2"),
    )
    order = ["198.51.100.1", "192.0.2.10", "192.0.2.9", "2001:db8::1"]
    assert pick(*states, preferred=("198.51.100.1",)) == order
    assert pick(*reversed(states), preferred=("198.51.100.1",)) == order


def test_there_are_not_more_than_a_mapping_takes() -> None:
    many = [state(f"192.0.2.{number}/24") for number in range(1, 40)]
    assert len(pick(*many)) == MAX_RLOCS


def test_an_interface_of_this_machine_is_up_and_an_unknown_one_is_not() -> None:
    assert links.is_up("lo")
    assert not links.is_up("nothere0")
    assert links.mtu_of("lo") == 65536
    assert links.mtu_of("nothere0") == 0


def test_the_room_for_a_tunnel_is_that_of_the_narrowest_link() -> None:
    addresses = {
        "eth0": [state("192.0.2.1/24"), state("2001:db8::1/64")],
        "ppp0": [state("198.51.100.1/32", "ppp0")],
        "tiny": [state("203.0.113.1/24", "tiny")],
    }
    mtus = {"eth0": 1500, "ppp0": 1492, "tiny": 1280}
    v4, v6, ppp = (ipaddress.ip_address(a) for a in ("192.0.2.1", "2001:db8::1", "198.51.100.1"))
    assert links.room(addresses, {v4}, mtus.__getitem__) == 1440
    assert links.room(addresses, {v4, v6}, mtus.__getitem__) == 1420
    assert links.room(addresses, {v4, ppp}, mtus.__getitem__) == 1432
    assert links.room(addresses, set(), mtus.__getitem__) is None


class Kernel:
    """Tells changes as the kernel does."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Change] = asyncio.Queue()

    async def __aiter__(self) -> AsyncIterator[Change]:
        while True:
            yield await self.queue.get()

    def tell(self, *kinds: ChangeKind) -> None:
        for kind in kinds:
            self.queue.put_nowait(Change(kind))


async def test_a_burst_is_one_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "SETTLE_S", 0.25)  # a busy machine lets this test sleep too long
    monkeypatch.setattr(links, "SETTLE_MOST_S", 10.0)
    kernel = Kernel()
    settled = Settled(kernel)
    try:
        kernel.tell(ChangeKind.ADDRESS, ChangeKind.ROUTE)
        waiting = asyncio.create_task(settled.next())
        for _ in range(5):
            await asyncio.sleep(links.SETTLE_S / 25)
            kernel.tell(ChangeKind.ADDRESS)
        assert await waiting == {ChangeKind.ADDRESS, ChangeKind.ROUTE}
        assert await settled.next(asyncio.get_running_loop().time()) == set()
    finally:
        await settled.close()


async def test_changes_without_end_are_told_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "SETTLE_MOST_S", 0.1)
    kernel = Kernel()
    settled = Settled(kernel)

    async def storm() -> None:
        while True:
            kernel.tell(ChangeKind.LINK)
            await asyncio.sleep(0.01)

    weather = asyncio.create_task(storm())
    try:
        for _ in range(2):
            assert await asyncio.wait_for(settled.next(), 5) == {ChangeKind.LINK}
    finally:
        weather.cancel()
        await settled.close()


class FewAddresses(links.Links):
    """Links whose underlay a test sets."""

    def __init__(self) -> None:
        self.now: tuple[IPAddress, ...] = ()

    async def underlay(self) -> tuple[IPAddress, ...]:
        return self.now


async def test_what_is_told_and_what_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "ROUTE_PAUSE_S", 0.3)
    monkeypatch.setattr(links, "SETTLE_S", 0.01)
    kernel, few = Kernel(), FewAddresses()
    told: list[tuple[IPAddress, ...]] = []
    watching = asyncio.create_task(few.watch(kernel, lambda: None, told.append))
    try:
        one = few.now = (ipaddress.ip_address("192.0.2.1"),)
        kernel.tell(ChangeKind.ADDRESS)
        await eventually(lambda: told == [one])
        kernel.tell(ChangeKind.LINK, ChangeKind.ADDRESS)  # nothing that matters
        kernel.tell(ChangeKind.ROUTE)  # told, after the pause
        began = asyncio.get_running_loop().time()
        await eventually(lambda: told == [one, one])
        assert asyncio.get_running_loop().time() - began > 0.2
        kernel.tell(ChangeKind.ROUTE)  # waits for the pause, and is overtaken by an address
        two = few.now = (ipaddress.ip_address("192.0.2.2"),)
        kernel.tell(ChangeKind.ADDRESS)
        began = asyncio.get_running_loop().time()
        await eventually(lambda: told == [one, one, two])
        assert asyncio.get_running_loop().time() - began < 0.25
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def test_the_check_of_own_interfaces_ends_it() -> None:
    kernel, few = Kernel(), FewAddresses()
    kernel.tell(ChangeKind.LINK)

    def gone() -> None:
        raise InterfaceLostError("wgm-tun is gone")

    with pytest.raises(InterfaceLostError):
        await asyncio.wait_for(few.watch(kernel, gone, lambda _: None), 5)


def test_interfaces_are_known_by_their_indices() -> None:
    names = ["lo"]
    present = Presence(lambda: names)
    present.check()
    names.append("nothere0")
    with pytest.raises(InterfaceLostError, match="nothere0"):
        present.check()
    with pytest.raises(InterfaceLostError, match="nothere0"):
        Presence(lambda: ["lo", "nothere0"])
