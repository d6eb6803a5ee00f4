"""The data device as the engine sees it: one, though there are two while the data key rotates.

Every peer has a *place*, the device that its routes go over. A peer that is on the old device is on
the new one as well, with the same prefixes, so that it can start a handshake there and what it
sends there is taken; routes follow later, peer by peer. What the engine decides goes to a peer's
place; what it must be able to do on the other device (endpoint, prefixes, removal) goes there too.

A peer that rotates while we do is an *heir*: its new key is on the new device alone and has the
prefixes there, while its old key keeps them on the old device. So both ends take packets over both
tunnels, and its routes stay where they are until it shows that it does. Who has gone over is left
*behind* on the old device, until that goes: what is on its way, or in the other side's queues,
still comes in there.
"""

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass, replace

from wgmap.addresses import IPAddress, IPNetwork
from wgmap.wg.device import Device, DeviceConfig, DeviceState, Look, PeerConfig, PeerState
from wgmap.wg.keys import PublicKey
from wgmap_agent.engine.packets import echo_request, host_in, read
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
class Ahead:
    """How far a rotation is."""

    state: DeviceState  # of the new half
    waiting: frozenset[PublicKey]  # peers whose routes go over the old half
    heirs: frozenset[PublicKey]  # of these, those that rotate as well


@dataclass(frozen=True, slots=True)
class _Looks:
    """Looks at both halves."""

    old: Look
    new: Look
    moved: frozenset[PublicKey]  # their place is the new half

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
        self._heirs: set[PublicKey] = set()  # of these, those whose routes go over the old one
        # What of a moved peer is on the old half still: itself, or the key it is the heir of.
        self._behind: dict[PublicKey, PublicKey] = {}
        self._owned = _empty()  # what belongs to whom, kept up during a rotation
        self._to_next = False  # new peers are made there
        self._turn = asyncio.Lock()  # for changes
        self._reading = asyncio.Lock()  # no half comes or goes meanwhile; taken before the other

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
    def next_name(self) -> str:
        """The name of the interface that is rotated to."""
        assert self._next is not None
        return self._next.device.name

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
        async with self._reading:
            state = await self._current.device.read()
            if self._next is None:
                return state
            new = await self._next.device.read()
        hidden = self._hidden()
        peers = {key: one for key, one in state.peers.items() if key not in hidden}
        peers |= {key: one for key, one in new.peers.items() if key not in peers}
        return replace(state, peers=peers)

    async def look(self) -> Look:
        """Look at every peer where its place is; raises DeviceError."""
        async with self._reading:
            old = await self._current.device.look()
            if self._next is None:
                return old
            new = await self._next.device.look()
        return _Looks(old, new, self._hidden())

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
        async with self._reading, self._turn:
            state = await self._current.device.read()
            present = await half.device.read()
            routed = set(await half.routes.present())
            self._owned, self._to_next = _empty(), False
            for one in (*present.peers.values(), *state.peers.values()):
                self._own(one.key, one.allowed_ips)
            over = _superseded(state, present)
            self._moved = {
                one.key
                for one in present.peers.values()
                if one.key not in state.peers or routed & set(one.allowed_ips)
            }
            self._heirs.clear()
            self._behind.clear()
            for key in over:
                self._owned.drop_key(key)
            for key in self._moved:
                self._own(key, present.peers[key].allowed_ips)
            # The next key of a peer that has just begun to rotate goes on here: so both do.
            successors = {
                one.key
                for one in state.peers.values()
                if not one.allowed_ips and one.key not in present.peers
            }
            self._moved |= successors
            mirrored = tuple(
                PeerConfig(one.key, one.endpoint, one.allowed_ips)
                for one in state.peers.values()
                if one.key not in self._moved and one.key not in over
            )
            begun = (state.peers[key] for key in successors)
            again = tuple(PeerConfig(one.key, one.endpoint, (), one.keepalive_s) for one in begun)
            if mirrored or again:
                await half.device.configure(DeviceConfig(peers=mirrored + again))
            self._next = half
            await half.routes.add([p for key in self._moved for p in self._owned.prefixes(key)])
            left = over | (self._moved & set(state.peers))
            if left:
                gone = tuple(PeerConfig(key, remove=True) for key in left)
                await self._current.device.configure(DeviceConfig(peers=gone))
            return len(mirrored)

    async def look_ahead(self) -> Ahead:
        """Read the new device, and name the peers whose routes go over the old one still."""
        assert self._next is not None
        async with self._reading:
            state = await self._next.device.read()
        waiting = filter(self._waits, self._owned.owners())
        return Ahead(state, frozenset(waiting), frozenset(self._heirs))

    def waiting_at(self, sources: Iterable[IPAddress]) -> set[PublicKey]:
        """Name the peers that these addresses belong to and that are on the old device still."""
        claims = (self._owned.owner(source) for source in sources)
        return {claim.key for claim in claims if claim is not None and self._waits(claim.key)}

    def use_next(self) -> None:
        """Make new peers on the new device from now on: its key is registered."""
        self._to_next = True

    def show(self, key: PublicKey, own: Sequence[IPNetwork]) -> None:
        """Send an heir an echo request through the new device: by this it sees that we take its.

        ``own``: our prefixes, one of which it comes from.
        """
        assert self._next is not None
        for prefix in self._owned.prefixes(key):
            source = next((one for one in own if one.version == prefix.version), None)
            if source is not None:
                packet = echo_request(host_in(source), host_in(prefix), 0)
                self._next.injector.send((packet,))
                return

    async def switch(self, keys: Iterable[PublicKey]) -> None:
        """Let peers go over: their routes do; what is on its way over the old device comes in."""
        assert self._next is not None
        async with self._turn:
            going = [key for key in keys if key in self._owned.owners()]
            prefixes = [prefix for key in going for prefix in self._owned.prefixes(key)]
            for key in going:
                self._behind.setdefault(key, key)
            self._moved.update(going)
            self._heirs.difference_update(going)
            await self._next.routes.add(prefixes)

    async def finish(self) -> Half:
        """Let whoever is left go over, and have one half again; returns the old one, closed."""
        await self.switch((await self.look_ahead()).waiting)
        async with self._reading, self._turn:
            assert self._next is not None
            old, self._current, self._next = self._current, self._next, None
            self._moved.clear()
            self._heirs.clear()
            self._behind.clear()
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
        inherited = self._inherit(changes, kept)
        for change in changes:
            key = change.key
            goes = self._to_next or _is_successor(change)
            if goes and key in kept and key not in stays:
                self._moved.add(key)
            gone = key not in kept
            if key in self._moved:
                new.append(change)
                if gone and key in self._behind:
                    old.append(PeerConfig(self._behind[key], remove=True))
            else:
                if key not in inherited:
                    old.append(change)
                if not change.remove or gone:
                    new.append(_mirrored(change))
            self._follow(change, gone=gone)
        return old, new

    def _inherit(self, changes: Sequence[PeerConfig], kept: set[PublicKey]) -> set[PublicKey]:
        """Note who inherits all of a peer that is on the old half, and return whose it was."""
        gone = {one.key for one in changes if one.remove and one.key not in kept}
        inherited: set[PublicKey] = set()
        for change in changes:
            if change.key not in self._moved or self._owned.prefixes(change.key):
                continue
            claims = (self._owned.get(prefix) for prefix in change.allowed_ips or ())
            before = {claim.key for claim in claims if claim is not None}
            if len(before) == 1 and before <= gone - self._moved:
                [self._behind[change.key]] = before
                self._heirs.add(change.key)
                inherited |= before
        return inherited

    def _follow(self, change: PeerConfig, *, gone: bool) -> None:
        if gone:
            self._owned.drop_key(change.key)
            self._moved.discard(change.key)
            self._heirs.discard(change.key)
            self._behind.pop(change.key, None)
        elif change.allowed_ips is not None:
            self._own(change.key, change.allowed_ips)

    def _own(self, key: PublicKey, prefixes: Sequence[IPNetwork]) -> None:
        self._owned.drop_key(key)
        for prefix in prefixes:
            self._owned.offer(Claim(prefix, key, 0, 0.0))

    def _half_of(self, key: PublicKey | None) -> Half:
        if self._next is not None and key in self._moved and key not in self._heirs:
            return self._next
        return self._current

    def _waits(self, key: PublicKey) -> bool:
        return key not in self._moved or key in self._heirs

    def _hidden(self) -> frozenset[PublicKey]:
        """Return what is on the old half and not to be seen there."""
        return frozenset(self._moved) | frozenset(self._behind.values())

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


def _is_successor(change: PeerConfig) -> bool:
    """Say whether this is a peer's next key, which owns nothing yet: it rotates as we do."""
    return change.allowed_ips == () and not change.remove


def _superseded(old: DeviceState, new: DeviceState) -> set[PublicKey]:
    """Return who is on the old device alone and owns only what is another's on the new one."""
    taken = {
        prefix
        for one in new.peers.values()
        if one.key not in old.peers
        for prefix in one.allowed_ips
    }
    return {
        one.key
        for one in old.peers.values()
        if one.key not in new.peers and one.allowed_ips and taken.issuperset(one.allowed_ips)
    }


def _mirrored(change: PeerConfig) -> PeerConfig:
    """Return what of a change counts on the other device: no keepalive starts a handshake there."""
    return replace(change, keepalive_s=None)


def _add(result: Injected, more: Injected) -> None:
    result.sent += more.sent
    result.too_big += more.too_big
    for name, number in more.failed.items():
        result.failed[name] = result.failed.get(name, 0) + number
