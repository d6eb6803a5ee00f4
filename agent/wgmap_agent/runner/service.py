"""The running agent: adopts what is there, runs the engine, and leaves the tunnels when it ends."""

import asyncio
import gc
import random
from collections import deque
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from wgmap import addresses, clock
from wgmap.errors import WgmapError
from wgmap.log import Log
from wgmap.metrics.listener import MetricsServer
from wgmap.net.netlink import Network
from wgmap.signals import ending
from wgmap.systemd import watchdog_interval_s
from wgmap.wg import probe
from wgmap.wg.device import Backend, Device, DeviceState
from wgmap.wg.keys import PrivateKey, PublicKey
from wgmap_agent.config import AgentConfig
from wgmap_agent.engine.engine import Engine
from wgmap_agent.engine.locators import Rank
from wgmap_agent.engine.settings import Settings
from wgmap_agent.engine.types import (
    Action,
    Identity,
    ReadPeers,
    Save,
    SaveCache,
    SavedState,
    ServerInfo,
    Tunnel,
)
from wgmap_agent.runner import cachefile, interfaces, keys, walltime
from wgmap_agent.runner.cachefile import Cached, CacheFile, Times
from wgmap_agent.runner.contacts import Contacts
from wgmap_agent.runner.controlsocket import ControlSocket, Datagram
from wgmap_agent.runner.dataside import DataSide
from wgmap_agent.runner.executor import Executor, Hands, SourceFinder
from wgmap_agent.runner.injector import Sender
from wgmap_agent.runner.links import Links
from wgmap_agent.runner.lost import InterfaceLostError, Presence, is_lost
from wgmap_agent.runner.measures import Measures
from wgmap_agent.runner.overheard import Handshake, Overheard
from wgmap_agent.runner.pump import Pump
from wgmap_agent.runner.queries import Queries
from wgmap_agent.runner.readiness import Readiness
from wgmap_agent.runner.readpeers import PeerReader
from wgmap_agent.runner.reload import Reloader, ReloadError, asked_by_signal
from wgmap_agent.runner.rotator import Rotator, Steps
from wgmap_agent.runner.saver import Saver
from wgmap_agent.runner.statussocket import StatusSocket
from wgmap_agent.runner.store import Store
from wgmap_agent.runner.tun import Tun

REGISTERED_POLL_S = 0.25  # until the first time,
WATCH_S = 2.0  # and then
MAX_LOSSES = 5  # of interfaces, within
LOSSES_S = 60.0

log = Log("agent")


async def run(config: AgentConfig, path: Path) -> None:
    """Run until SIGTERM, SIGINT or a request to stop; the tunnels stay.

    ``path`` is read anew with SIGHUP. An agent that loses an interface begins anew and adopts what
    is left; it gives up where that happens again and again. Raises a WgmapError then, and where
    it cannot start.
    """
    losses: deque[float] = deque(maxlen=MAX_LOSSES)
    readiness = Readiness()
    descriptor: int | None = None  # of the TUN
    asked = asked_by_signal()
    try:
        while True:
            async with AsyncExitStack() as stack:
                agent = await _Agent.start(config, stack, readiness, descriptor)
                descriptor = None
                try:
                    await agent.run(path, asked)
                except ReloadError as error:
                    config, descriptor = error.config, agent.tun.detach()
                    log.info("reloading")
                except InterfaceLostError as error:
                    losses.append(clock.now())
                    if len(losses) == MAX_LOSSES and losses[-1] - losses[0] < LOSSES_S:
                        raise
                    log.warning("beginning anew", reason=error)
                else:
                    return
    finally:
        readiness.stopping()


def identity(
    config: AgentConfig, control: PrivateKey, data: PrivateKey, data_port: int
) -> Identity:
    """Say who this agent is, as the engine wants to know it."""
    section = config.agent
    return Identity(
        name=section.name,
        instance=section.instance,
        prefixes=section.prefixes,
        overlay=section.overlay,
        control_address=addresses.control_address(config.control.prefix, control.public),
        data_key=data.public,
        data_port=data_port,
        servers=tuple(
            ServerInfo(one.name, one.control_key, one.endpoint, one.control_address)
            for one in config.server
        ),
        ttl_min=section.ttl_min,
        idle_s=section.idle_s,
        control_prefix=config.control.prefix,
        ranks=tuple(Rank(one.prefix, one.priority, one.weight) for one in config.underlay.locator),
        marked=bool(config.underlay.fwmark),
    )


def settings_of(config: AgentConfig) -> Settings:
    """Return the engine's settings with what is configured of them."""
    configured = Settings.configured(
        unanswered_s=config.agent.unanswered_s,
        never_stood_s=config.agent.pending_s,
        unconfirmed_s=config.cache.hours * 3600,
        cache_peers=config.cache.peers if config.cache.enabled else 0,
    )
    return replace(
        configured,
        way_back_s=config.underlay.way_back_s,
        control_keepalive_s=config.control.keepalive_s,
    )


class _Agent:
    """Everything that runs, wired together."""

    network: Network
    data: DataSide
    tun: Tun

    def __init__(
        self,
        config: AgentConfig,
        engine: Engine,
        who: Identity,
        store: Store,
        cache_file: CacheFile,
        readiness: Readiness,
    ) -> None:
        self.config = config
        self.store = store
        self.cache_file = cache_file
        self.engine = engine
        self.who = who
        self.pump = Pump(engine, clock.now)
        self.readiness = readiness
        self.contacts = Contacts(clock.now)

    @classmethod
    async def start(
        cls,
        config: AgentConfig,
        stack: AsyncExitStack,
        readiness: Readiness,
        tun_descriptor: int | None,
    ) -> "_Agent":
        """Open everything, in the order in which a part needs the others."""
        store = stack.enter_context(Store(config.agent.state_dir))
        tun = stack.enter_context(Tun(config.tun.interface, tun_descriptor))
        control_key, data_key = keys.load(config.agent.state_dir)
        await walltime.reached(store.last_wall)
        backend = await probe.choose(config.agent.state_dir)
        network = await stack.enter_async_context(Network())
        data = DataSide(config, backend, network, data_key)
        key, port = await data.registered()
        who = identity(config, control_key, key, port)
        rng = random.Random()  # noqa: S311  # jitter and nonces; tunnels authenticate
        settings = settings_of(config)
        owner = cachefile.owner_of(who, control_key.public)
        cache_file = CacheFile(config.agent.state_dir, owner, settings.unconfirmed_s)
        cached, saved = _remembered(config, store, cache_file)
        engine = Engine(who, saved, rng, settings, cached.peers)
        # From here on those count that a former run learnt.
        who = replace(who, servers=engine.servers())
        self = cls(config, engine, who, store, cache_file, readiness)
        self.network, self.data, self.tun = network, data, tun
        await self._open(stack, backend, control_key)
        return self

    async def _open(self, stack: AsyncExitStack, backend: Backend, control_key: PrivateKey) -> None:
        config = self.config
        await interfaces.set_up_tun(self.network, config)
        control = await interfaces.open_control(
            backend, self.network, config, self.who, control_key
        )
        stack.push_async_callback(control.close)
        self.pair = await self.data.open(stack)
        devices: dict[Tunnel, Device] = {Tunnel.CONTROL: control, Tunnel.DATA: self.pair}
        # Last: from here on first packets come in, and they must find the data routes.
        await interfaces.route_overlay(self.network, config)
        self.control = stack.enter_context(self._control_socket())
        self.saver: Saver[SavedState] = Saver(
            self.store.save, lambda state, error: self._failed(Save(state), error)
        )
        self.cache_saver: Saver[SaveCache] = Saver(
            lambda cache: self.cache_file.save(cache, _times()), self._failed
        )
        stack.push_async_callback(self.saver.close)
        stack.push_async_callback(self.cache_saver.close)
        self.executor = self._executor(stack, devices)
        self.pump.add(self.tun, self.engine.packet)
        self.pump.add(self.control, self._datagram)
        self.overheard = [stack.enter_context(Overheard(port)) for _, port in config.data.places]
        self.links = Links(self.network, config)
        self.links.towards(tuple(one.endpoint for one in self.who.servers))
        self.rotator = Rotator(config, self.data, self.pair, self._rotation_steps())

    def _control_socket(self) -> ControlSocket:
        servers = {one.name: one.control_address for one in self.who.servers}
        interface = self.config.control.interface
        return ControlSocket(interface, self.who.control_address, servers)

    def _use_servers(self, servers: tuple[ServerInfo, ...]) -> None:
        self.control.use({one.name: one.control_address for one in servers})
        self.links.towards(tuple(one.endpoint for one in servers))
        log.info("map servers", names=",".join(one.name for one in servers))

    def _executor(self, stack: AsyncExitStack, devices: dict[Tunnel, Device]) -> Executor:
        config = self.config
        reader = PeerReader(devices, self._peers_read, self._failed)
        stack.push_async_callback(reader.close)
        hands = Hands(
            devices=devices,
            routes=self.pair,
            control=self.control,
            data=self.pair,
            local=stack.enter_context(Sender()),
            source_for=SourceFinder(config.agent.prefixes),
            read_peers=reader.want,
            save=self.saver,
            save_cache=self._save_cache,
            stamp=self.contacts.stamp,
            use_servers=self._use_servers,
            data_mtu=config.tun.mtu,
        )
        return Executor(hands, self._failed)

    async def run(self, path: Path, asked: asyncio.Event) -> None:
        """Serve until told to stop; ReloadError where ``path`` was read anew, as ``asked``."""
        queries = Queries(
            self.config, self.engine, self.pump, self.counters, self.contacts, self.rotator
        )
        socket = StatusSocket(self.config.agent.socket, queries)
        await socket.start()
        listen = self.config.metrics.listen
        page = Measures(self.engine, self.contacts, self.counters)
        metrics = MetricsServer(listen, page, page.ready) if listen is not None else None
        try:
            if metrics is not None:
                await metrics.start()
            present = Presence(self._interfaces)
            with self.network.changes() as changes, ending(self.pump.stop):
                underlay = await self.links.underlay()
                self.pump.take(self.engine.start(clock.now(), underlay))
                for overheard in self.overheard:
                    overheard.start(self._handshake)
                async with _background(
                    self.pump,
                    self.links.watch(changes, present.check, self._moved),
                    self._tell_manager(),
                    self.rotator.run(),
                    Reloader(path, self.config, asked, self._stop_reading, self._held).run(),
                ):
                    log.info("started", name=self.who.name, control=self.who.control_address)
                    gc.collect()
                    gc.freeze()  # what is there stays: a collection that walks it is a delay
                    await self.pump.run(self.executor.execute, self.executor.begin)
                    await self.executor.execute(self.engine.stop(clock.now()))
        finally:
            await socket.close()
            if metrics is not None:
                await metrics.stop()
            log.info("stopped; tunnels stay")

    def _stop_reading(self) -> None:
        self.pump.leave(self.tun.fileno())

    def _held(self) -> int:
        return self.engine.status(clock.now()).counters["now.held_packets"]

    def _save_cache(self, cache: SaveCache) -> None:
        if self.config.cache.enabled:
            self.cache_saver(cache)

    def counters(self) -> dict[str, int]:
        """Count what the runner did; the names do not meet those of the engine."""
        counted = {f"run.{name}": number for name, number in self.executor.counters.items()}
        return {
            **counted,
            "run.control.refused": self.control.refused,
        }

    def _datagram(self, now: float, datagram: Datagram) -> list[Action]:
        return self.engine.datagram(now, datagram.source, datagram.data)

    def _interfaces(self) -> tuple[str, ...]:
        config = self.config
        return config.tun.interface, config.control.interface, *self.pair.names

    def _rotation_steps(self) -> Steps:
        return Steps(
            announce=self._announce,
            registered=lambda: self.engine.is_registered(clock.now()),
            is_quiet=lambda: self.engine.successors.is_quiet(clock.now()),
            over=self.engine.successors.rotated,
            count=self.engine.counters.add,
        )

    def _announce(self, key: PublicKey, port: int) -> None:
        self.pump.take(self.engine.rotate(clock.now(), key, port))

    def _handshake(self, one: Handshake) -> None:
        if one.is_response:
            self.pump.take(self.engine.response(clock.now(), one.source))
        else:
            self.rotator.hurry()
            self.pump.take(self.engine.initiation(clock.now(), one.source, one.at, one.packet))

    def _failed(self, action: Action, error: WgmapError) -> None:
        if is_lost(error):
            self.pump.stop(InterfaceLostError(str(error)))
        else:
            self.pump.failed(action, error)

    def _peers_read(self, asked: ReadPeers, state: DeviceState) -> None:
        self.pump.take(self.engine.peers_read(clock.now(), asked, state, walltime.now()))

    def _moved(self, underlay: tuple[addresses.IPAddress, ...]) -> None:
        self.pump.take(self.engine.addresses_changed(clock.now(), underlay))

    async def _tell_manager(self) -> None:
        """Tell when the agent is registered, and that the loop turns."""
        told_at = noted_at = float("-inf")
        was = False
        while True:
            now = clock.now()
            registered = self.engine.is_registered(now)
            if registered != was:
                log.info("registered" if registered else "not registered any more")
                self.readiness.ready("registered" if registered else "not registered")
            was = registered
            if now - told_at >= watchdog_interval_s():
                self.readiness.alive()
                told_at = now
            if now - noted_at >= walltime.NOTE_S:
                await asyncio.to_thread(self.store.note_wall, walltime.now())  # disks may hang
                noted_at = now
            await asyncio.sleep(WATCH_S if registered else REGISTERED_POLL_S)


def _times() -> Times:
    return Times(clock.now(), walltime.now())


def _remembered(
    config: AgentConfig, store: Store, cache_file: CacheFile
) -> tuple[Cached, SavedState]:
    """Read what a former run left."""
    saved = store.load()
    if not config.cache.enabled:
        cache_file.remove()
        return Cached(), saved
    cached = cache_file.load(_times())
    return cached, replace(saved, revocation=cached.revocation_known(saved.revocation))


@asynccontextmanager
async def _background(pump: Pump, *jobs: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run jobs beside the pump, which ends with the first of them; raises what a job raised."""
    tasks = [asyncio.create_task(job) for job in jobs]
    for task in tasks:
        task.add_done_callback(lambda _: pump.stop())
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result
