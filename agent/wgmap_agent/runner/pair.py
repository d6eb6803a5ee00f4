"""The data device as the engine sees it: one, though there are two while the data key rotates.

Every peer has a *place*, the device that its routes go over. A peer that is on the old device is on
the new one as well, with the same prefixes, so that it can start a handshake there and what it
sends there is taken; routes follow later, peer by peer. What the engine decides goes to a peer's
place; what it must be able to do on the other device (endpoint, prefixes, removal) goes there too.
"""

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass, replace

from wgmap.addresses import IPNetwork
from wgmap.wg.device import Device, DeviceConfig, DeviceState, Look, PeerConfig, PeerState
from wgmap.wg.keys import PublicKey
from wgmap_agent.engine.packets import read
from wgmap_agent.engine.settings import Settings
from wgmap_agent.engine.table import Claim, Table
from wgmap_agent.runner.injector import Injected, Injector
from wgmap_agent.runner.interfaces import DataRoutes


@dataclass(frozen=True, slots=True)
class Half:
    """One data device with what goes over it."""

    device: Device
    routes: DataRoutes
    injector: Injector


@dataclass(frozen=True, slots=True)
class _Looks:
    """Looks at both halves."""

    old: Look
    new: Look
    moved: frozenset[PublicKey]

    def peer(self, key: PublicKey) -> PeerState | None:
        found = None if key in self.moved else self.old.peer(key)
        return self.new.peer(key) if found is None else found

    def handshake_s(self, key: PublicKey) -> int:
        old = 0 if key in self.moved else self.old.handshake_s(key)
        return old or self.new.handshake_s(key)


class Pair:
    """A Device, its routes and its injector; usually there is one half."""

    def __init__(self, half: Half) -> None:
        self._current = half  # the old one during a rotation
        self._next: Half | None = None
        self._moved: set[PublicKey] = set()  # peers whose place is the new half
        self._owned = _empty()  # what belongs to whom, kept up during a rotation
        self._to_next = False  # new peers are made there
        self._turn = asyncio.Lock()

    @property
    def name(self) -> str:
        """The name of the interface that new peers are made on."""
        half = self._next if self._next is not None and self._to_next else self._current
        return half.device.name

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the interfaces that there are."""
        return tuple(half.device.name for half in self._halves())

    @property
    def rotating(self) -> bool:
        """Whether there are two halves."""
        return self._next is not None

    # ---------------------------------------------------------------------- what the engine does

    async def configure(self, config: DeviceConfig) -> None:
        """Apply changes of peers, each where its peer is; raises DeviceError."""
        async with self._turn:
            if self._next is None:
                await self._current.device.configure(config)
                return
            old, new = self._split(config.peers)
            if old:
                await self._current.device.configure(DeviceConfig(peers=tuple(old)))
            if new:
                await self._next.device.configure(DeviceConfig(peers=tuple(new)))

    def begin(self, config: DeviceConfig) -> Awaitable[None] | None:
        """Apply changes without a turn of the loop where that is possible; raises DeviceError."""
        if self._next is None and not self._turn.locked():
            return self._current.device.begin(config)
        return self.configure(config)

    async def read(self) -> DeviceState:
        """Read every peer where its place is; raises DeviceError."""
        async with self._turn:
            state = await self._current.device.read()
            if self._next is None:
                return state
            new = await self._next.device.read()
        peers = {key: one for key, one in state.peers.items() if key not in self._moved}
        peers |= {key: one for key, one in new.peers.items() if key not in peers}
        return replace(state, peers=peers)

    async def look(self) -> Look:
        """Look at every peer where its place is; raises DeviceError."""
        async with self._turn:
            look = await self._current.device.look()
            if self._next is None:
                return look
            return _Looks(look, await self._next.device.look(), frozenset(self._moved))

    async def add(self, prefixes: Sequence[IPNetwork]) -> None:
        """Route prefixes over the place of their peer; raises NetworkError."""
        async with self._turn:
            for half, some in self._by_place(prefixes):
                await half.routes.add(some)

    def begin_add(self, prefixes: Sequence[IPNetwork]) -> Awaitable[None] | None:
        """Route prefixes without a turn of the loop where that is possible; NetworkError."""
        if self._next is None and not self._turn.locked():
            return self._current.routes.begin_add(prefixes)
        return self.add(prefixes)

    async def delete(self, prefixes: Sequence[IPNetwork]) -> None:
        """Remove routes, wherever they go; absent ones are no error. Raises NetworkError."""
        async with self._turn:
            for half in self._halves():
                await half.routes.delete(prefixes)

    def send(self, packets: tuple[bytes, ...]) -> Injected:
        """Send packets over the place of their peer; never blocks."""
        if self._next is None:
            return self._current.injector.send(packets)
        result = Injected()
        for packet in packets:
            _add(result, self._half_for(packet).injector.send((packet,)))
        return result

    async def close(self) -> None:
        """Let go of the devices; the interfaces and their tunnels stay."""
        for half in self._halves():
            half.injector.close()
            await half.device.close()

    # -------------------------------------------------------------------------------- a rotation

    async def rotate_to(self, half: Half) -> int:
        """Have a second half with every peer of the first; returns how many are on the first.

        One that has peers already is of a rotation that was interrupted: a peer whose routes go
        over it has gone over. Raises DeviceError, NetworkError.
        """
        async with self._turn:
            state = await self._current.device.read()
            present = await half.device.read()
            routed = set(await half.routes.present())
            self._owned, self._to_next = _empty(), False
            self._moved = set()
            for one in (*present.peers.values(), *state.peers.values()):
                self._own(one.key, one.allowed_ips)
            for one in present.peers.values():
                stays = one.key in state.peers and not routed & set(one.allowed_ips)
                if not stays:
                    self._moved.add(one.key)
            mirrored = tuple(
                PeerConfig(one.key, one.endpoint, one.allowed_ips)
                for one in state.peers.values()
                if one.key not in self._moved
            )
            if mirrored:
                await half.device.configure(DeviceConfig(peers=mirrored))
            self._next = half
            await half.routes.add([p for key in self._moved for p in self._owned.prefixes(key)])
            gone = tuple(PeerConfig(k, remove=True) for k in state.peers if k in self._moved)
            if gone:
                await self._current.device.configure(DeviceConfig(peers=gone))
            return len(mirrored)

    async def look_ahead(self) -> tuple[DeviceState, frozenset[PublicKey]]:
        """Read the new device, and name the peers that are on the old one still."""
        assert self._next is not None
        async with self._turn:
            state = await self._next.device.read()
        waiting = frozenset(key for key in self._owned.owners() if key not in self._moved)
        return state, waiting

    def use_next(self) -> None:
        """Make new peers on the new device from now on: its key is registered."""
        self._to_next = True

    async def switch(self, keys: Iterable[PublicKey]) -> None:
        """Let peers go over: their routes first, then they leave the old device."""
        assert self._next is not None
        async with self._turn:
            going = [key for key in keys if key in self._owned.owners()]
            prefixes = [prefix for key in going for prefix in self._owned.prefixes(key)]
            self._moved |= set(going)
            await self._next.routes.add(prefixes)
            gone = tuple(PeerConfig(key, remove=True) for key in going)
            if gone:
                await self._current.device.configure(DeviceConfig(peers=gone))

    async def finish(self) -> Half:
        """Let whoever is left go over, and have one half again; returns the old one, closed."""
        _, waiting = await self.look_ahead()
        await self.switch(waiting)
        async with self._turn:
            assert self._next is not None
            old, self._current, self._next = self._current, self._next, None
            self._moved.clear()
            self._owned = _empty()
        old.injector.close()
        await old.device.close()
        return old

    # ----------------------------------------------------------------------------------- places

    def _halves(self) -> tuple[Half, ...]:
        return (self._current,) if self._next is None else (self._current, self._next)

    def _split(self, changes: Sequence[PeerConfig]) -> tuple[list[PeerConfig], list[PeerConfig]]:
        """Say what goes to the old device and what to the new one."""
        old: list[PeerConfig] = []
        new: list[PeerConfig] = []
        stays = {one.key for one in changes if self._owned.prefixes(one.key)} - self._moved
        kept = {one.key for one in changes if not one.remove}  # those that are kicked included
        for change in changes:
            key = change.key
            if self._to_next and key in kept and key not in stays:
                self._moved.add(key)
            if key in self._moved:
                new.append(change)
            else:
                old.append(change)
                if not change.remove or key not in kept:
                    new.append(_mirrored(change))
            self._follow(change, gone=key not in kept)
        return old, new

    def _follow(self, change: PeerConfig, *, gone: bool) -> None:
        if gone:
            self._owned.drop_key(change.key)
            self._moved.discard(change.key)
        elif change.allowed_ips is not None:
            self._own(change.key, change.allowed_ips)

    def _own(self, key: PublicKey, prefixes: Sequence[IPNetwork]) -> None:
        self._owned.drop_key(key)
        for prefix in prefixes:
            self._owned.offer(Claim(prefix, key, 0, 0.0))

    def _half_of(self, key: PublicKey | None) -> Half:
        if self._next is not None and key in self._moved:
            return self._next
        return self._current

    def _half_for(self, packet: bytes) -> Half:
        header = read(packet)
        claim = None if header is None else self._owned.owner(header.destination)
        return self._half_of(None if claim is None else claim.key)

    def _by_place(self, prefixes: Sequence[IPNetwork]) -> list[tuple[Half, list[IPNetwork]]]:
        if self._next is None:
            return [(self._current, list(prefixes))]
        places: dict[int, tuple[Half, list[IPNetwork]]] = {}
        for prefix in prefixes:
            claim = self._owned.get(prefix)
            half = self._half_of(None if claim is None else claim.key)
            places.setdefault(id(half), (half, []))[1].append(prefix)
        return list(places.values())


def _empty() -> Table:
    return Table(Settings(max_peers=1 << 20))


def _mirrored(change: PeerConfig) -> PeerConfig:
    """Return what of a change counts on the other device: no keepalive starts a handshake there."""
    return replace(change, keepalive_s=None)


def _add(result: Injected, more: Injected) -> None:
    result.sent += more.sent
    result.too_big += more.too_big
    for name, number in more.failed.items():
        result.failed[name] = result.failed.get(name, 0) + number
