"""The underlay addresses of this machine: where other agents can reach its tunnels.

An address counts when it is global, settled, on an interface that is up, and neither ours nor of
the overlay or the control prefix: otherwise tunnels would be carried by tunnels.
"""

import asyncio
import contextlib
import errno
import fcntl
import ipaddress
import socket
import struct
from collections.abc import AsyncIterable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from wgmap.addresses import Endpoint, IPAddress, IPNetwork
from wgmap.log import Log
from wgmap.net.changes import Change, ChangeKind
from wgmap.net.netlink import AddressState, Network
from wgmap.net.rtnetlink import SCOPE_UNIVERSE
from wgmap_agent.config import AgentConfig
from wgmap_agent.runner import interfaces

SETTLE_S = 0.01  # a change that is followed by others waits for them (a flow may wait as well),
SETTLE_MOST_S = 0.5  # but not for longer than this
ROUTE_PAUSE_S = 1.0  # between two changes of nothing but routes: some routers change them all day
MAX_RLOCS = 8
OVERHEAD = {4: 60, 6: 80}  # bytes that a tunnel adds over an underlay of IPv4, of IPv6

_SIOCGIFFLAGS, _SIOCGIFMTU = 0x8913, 0x8921
_IFF_UP, _IFF_RUNNING = 0x1, 0x40

log = Log("agent.links")


@dataclass(frozen=True, slots=True)
class Rules:
    """What is not underlay."""

    own_interfaces: frozenset[str]
    own_networks: tuple[IPNetwork, ...]  # overlay and control prefix

    @classmethod
    def of(cls, config: AgentConfig) -> "Rules":
        """Take them from the configuration."""
        data = (name for name, _ in config.data.places)
        names = (config.tun.interface, config.control.interface, *data)
        # With a mark the tunnels' packets keep out of the overlay, whatever it covers.
        overlay = config.agent.prefixes if config.underlay.fwmark else config.agent.overlay
        return cls(frozenset(names), (*overlay, config.control.prefix))


def rlocs(
    addresses: Mapping[str, Iterable[AddressState]],
    up: Collection[str],
    preferred: Collection[IPAddress],
    rules: Rules,
) -> tuple[IPAddress, ...]:
    """Pick the addresses that can be reached from outside, the best first. Pure.

    ``up``: interfaces that are; ``preferred``: what the kernel sends from to the map servers.
    Then IPv4 before IPv6, then by interface: one order for one state. At most MAX_RLOCS.
    """
    found = [
        (state.address.ip not in preferred, state.address.version, name, state.address.ip)
        for name, states in addresses.items()
        if name in up and name not in rules.own_interfaces
        for state in states
        if state.usable and _is_underlay(state.address.ip, rules)
    ]
    found.sort(key=lambda one: (*one[:3], int(one[3])))
    return tuple(dict.fromkeys(one[3] for one in found))[:MAX_RLOCS]


def networks(
    addresses: Mapping[str, Iterable[AddressState]], rules: Rules
) -> tuple[IPNetwork, ...]:
    """Return the networks of the links of the underlay. Pure."""
    found = {
        state.address.network
        for name, states in addresses.items()
        if name not in rules.own_interfaces
        for state in states
        if state.scope == SCOPE_UNIVERSE
        and state.address.network.prefixlen < state.address.max_prefixlen
    }
    return tuple(sorted(found, key=lambda one: (one.version, one.network_address, one.prefixlen)))


def room(
    addresses: Mapping[str, Iterable[AddressState]],
    chosen: Collection[IPAddress],
    mtu_of: Callable[[str], int],
) -> int | None:
    """Return the largest tunnel MTU (bytes) that fits every chosen address's link. Pure.

    WireGuard adds 32 bytes, UDP 8 and the outer IP header 20 or 40; a full packet is padded to
    no more than the MTU. None without addresses.
    """
    fits = [
        mtu_of(name) - OVERHEAD[state.address.version]
        for name, states in addresses.items()
        for state in states
        if state.address.ip in chosen and mtu_of(name)  # 0: it is just gone
    ]
    return min(fits, default=None)


def _is_underlay(address: IPAddress, rules: Rules) -> bool:
    special = (
        address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_unspecified
    )
    return not special and not any(address in network for network in rules.own_networks)


class Links:
    """Knows the underlay's addresses and tells when they, or the way out, have changed."""

    def __init__(self, network: Network, config: AgentConfig) -> None:
        self._network = network
        self._rules = Rules.of(config)
        self._servers = tuple(one.endpoint for one in config.server)
        self._mtu = config.tun.mtu
        self._mark = config.underlay.fwmark
        self._config = config
        self._room: int | None = None

    def towards(self, servers: tuple[Endpoint, ...]) -> None:
        """Prefer from now on the addresses that the kernel sends from to these."""
        self._servers = servers

    async def underlay(self) -> tuple[IPAddress, ...]:
        """Read the addresses as they are now, and have the rules follow; raises NetworkError."""
        addresses = await self._network.addresses()
        await self._network.set_rules(
            interfaces.rules(self._config, networks(addresses, self._rules))
        )
        up = {name for name in addresses if is_up(name)}
        sources = (source_towards(server, self._mark) for server in self._servers)
        preferred = {source for source in sources if source is not None}
        chosen = rlocs(addresses, up, preferred, self._rules)
        self._check_mtu(room(addresses, chosen, mtu_of))
        return chosen

    def _check_mtu(self, fits: int | None) -> None:
        """Tell once of links on which full packets of the tunnels would be fragmented."""
        if fits is not None and fits < self._mtu and fits != self._room:
            log.warning("the MTU is too large for the underlay", mtu=self._mtu, fits=fits)
        self._room = fits

    async def watch(
        self,
        changes: AsyncIterable[Change],
        check: Callable[[], None],
        told: Callable[[tuple[IPAddress, ...]], None],
    ) -> None:
        """Tell of the underlay after every change, until cancelled.

        Raises NetworkError, and what ``check``, called after every change, raises.

        A burst of changes is told once. A change of routes alone is told too (the way out may be
        another one), though not at once where it follows another.
        """
        settled = Settled(changes)
        known: tuple[IPAddress, ...] | None = None
        told_at = -ROUTE_PAUSE_S
        kinds: set[ChangeKind] = set()
        try:
            while True:
                # Changes of routes that wait for the end of the pause do not keep others waiting.
                kinds |= await settled.next(told_at + ROUTE_PAUSE_S if kinds else None)
                check()
                underlay = await self.underlay()
                now = asyncio.get_running_loop().time()
                if underlay == known:
                    kinds &= {ChangeKind.ROUTE}
                    if not kinds or now < told_at + ROUTE_PAUSE_S:
                        continue
                else:
                    log.info("underlay", addresses=",".join(map(str, underlay)) or "none")
                known, told_at, kinds = underlay, now, set()
                told(underlay)
        finally:
            await settled.close()


class Settled:
    """Gathers changes: ``next`` returns when there were some and none has come for a while."""

    def __init__(self, changes: AsyncIterable[Change]) -> None:
        self._kinds: set[ChangeKind] = set()
        self._some = asyncio.Event()
        self._latest = 0.0
        self._task = asyncio.create_task(self._listen(changes))

    async def next(self, until: float | None = None) -> set[ChangeKind]:
        """Wait for a burst to be over; raises what listening raised.

        With ``until`` (the loop's seconds) it returns an empty set when nothing came until then.
        """
        if not await self._wait_for_some(until):
            return set()
        await self._settle()
        kinds, self._kinds = self._kinds, set()
        self._some.clear()
        return kinds

    async def _wait_for_some(self, until: float | None) -> bool:
        wait = None if until is None else max(0.0, until - asyncio.get_running_loop().time())
        waiting = asyncio.create_task(self._some.wait())
        try:
            both = (waiting, self._task)
            await asyncio.wait(both, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if self._task.done():
            self._task.result()
        return self._some.is_set()

    async def close(self) -> None:
        """Stop listening."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _settle(self) -> None:
        loop = asyncio.get_running_loop()
        last = loop.time() + SETTLE_MOST_S
        while (end := min(self._latest + SETTLE_S, last)) > loop.time():  # noqa: ASYNC110
            await asyncio.sleep(end - loop.time())

    async def _listen(self, changes: AsyncIterable[Change]) -> None:
        async for change in changes:
            self._note(change)

    def _note(self, change: Change) -> None:
        self._kinds.add(change.kind)
        self._latest = asyncio.get_running_loop().time()
        self._some.set()


def is_up(interface: str) -> bool:
    """Tell whether an interface of this network namespace is up and has a carrier."""
    (flags,) = struct.unpack_from("H", _ask(_SIOCGIFFLAGS, interface))
    return bool(flags & _IFF_UP and flags & _IFF_RUNNING)


def mtu_of(interface: str) -> int:
    """Return an interface's MTU in bytes; 0 where it is gone."""
    mtu: int = struct.unpack_from("i", _ask(_SIOCGIFMTU, interface))[0]
    return mtu


def _ask(number: int, interface: str) -> bytes:
    """Ask the kernel (ioctl) about an interface; zeros where it is gone."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sH22x", interface.encode(), 0)
        try:
            answer = fcntl.ioctl(any_socket, number, request)
        except OSError as error:
            if error.errno == errno.ENODEV:
                return bytes(24)
            raise
    return answer[16:]


def source_towards(endpoint: Endpoint, mark: int = 0) -> IPAddress | None:
    """Return the address that the kernel sends from to an endpoint; None without a way.

    ``mark``: of the packets that are meant.
    """
    family = socket.AF_INET if endpoint.address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        if mark:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        probe.connect((str(endpoint.address), endpoint.port))  # nothing is sent
        name: str = probe.getsockname()[0]
        return ipaddress.ip_address(name.partition("%")[0])
    return None
