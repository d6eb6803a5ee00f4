"""The replica as a whole: which parts there are, and how they hang together."""

import asyncio
import os
import random
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeAlias

from wgmap import garbage
from wgmap.clock import now
from wgmap.log import Log
from wgmap_cluster.config import ServerConfig
from wgmap_cluster.feed import SOCKET_NAME, FeedServer
from wgmap_cluster.fsm.commands import Command
from wgmap_cluster.fsm.machine import Machine
from wgmap_cluster.fsm.results import Applied, Refused
from wgmap_cluster.fsm.rows import Meta
from wgmap_cluster.raft.interface import ClusterLog, Outcome, Role
from wgmap_cluster.replica import seen
from wgmap_cluster.replica.core import Core
from wgmap_cluster.replica.expiry import TICK_S, DueQueue, LeaderClock
from wgmap_cluster.replica.feeding import Feeder
from wgmap_cluster.replica.founding import bootstrap_command
from wgmap_cluster.replica.lease import LeaseKeeper
from wgmap_cluster.replica.measures import MOST_INSTANCES, Seen
from wgmap_cluster.replica.notes import ServerNote
from wgmap_cluster.replica.operations import Operations
from wgmap_cluster.replica.proposing import NotReadByAllError, Proposer
from wgmap_cluster.replica.registrations import Registrar
from wgmap_cluster.replica.tunnels import Tunnels
from wgmap_cluster.replica.views import CountersView

BOOTSTRAP_RETRY_S = 0.3
PUBLISH_S = 0.1
WHOLE_EVERY = 360  # collections, an hour: operators' requests leave more behind than datagrams
# Between two counts of the agents that can be reached: 60 times what one takes, for that grows
# with the peers (mostly for the device), within these bounds.
REACHABLE_S, REACHABLE_MOST_S, REACHABLE_REST = 1.0, 30.0, 60
_LOG = Log("replica")
Part: TypeAlias = Callable[[], Coroutine[Any, Any, None]]


class Replica:
    """Runs until it is cancelled or a part of it fails."""

    def __init__(
        self, config: ServerConfig, machine: Machine, log: ClusterLog, tunnels: Tunnels
    ) -> None:
        """Put the parts together; nothing is read or started yet."""
        self._config = config
        self._group = asyncio.TaskGroup()
        self._tunnels = tunnels
        self.machine = machine
        self.log = log
        self.core = Core(machine, log, Proposer(config.server.name, log), self._spawn)
        self.lease = LeaseKeeper(log, config.server.staleness_s, self._granted)
        self.seen = seen.SeenBatch()
        self.registrar = Registrar(
            self.core, outer=tunnels, fresh=self.lease.fresh, seen=self.seen.add
        )
        self.feeder = Feeder(self.core, self.registrar)
        self._reachable: int | None = None
        self._caught_up = asyncio.Event()
        self._queue = DueQueue()
        self._clock = LeaderClock()
        self.machine.listen(self._queue.applied)
        self.machine.listen_restored(self._restored)

    def note(self) -> ServerNote:
        """Return what this server tells others about itself, as of now."""
        return ServerNote.of(
            self.log.status(),
            fresh=self.lease.fresh(),
            reachable_agents=self._reachable,
            served=self.feeder.served(),
        )

    def operations(self) -> Operations:
        """Return what operators may do."""
        server = self._config.server
        operations = Operations(
            *(server.name, self.machine, self.log, self.note, server.staleness_s),
            state_dir=server.state_dir,
            config=self._config,
            counters=self.counters,
            responders=self.feeder,
        )
        self.log.on_asked(operations.contacts.answer)
        return operations

    def counters(self) -> CountersView:
        """Return what was counted since the start; responders told it a second ago."""
        return {
            "replica": dict(self.core.counters),
            "log": self.log.figures(),
            "responders": self.feeder.counted(),
        }

    def seen_now(self) -> Seen:
        """Return what metrics and health tell."""
        return Seen(
            fresh=self.lease.fresh(),
            lease_left_s=self.lease.left_s(),
            leader=self.log.status().leader,
            restoring=Meta.RESTORING in self.machine.state.meta,
            counts=self.machine.state.counts(),
            instances=self.machine.state.instance_counts(MOST_INSTANCES),
            control_tunnels=self._reachable,
            responding=self.feeder.responding(),
            counters=self.counters(),
            registers=self.registrar.took,
        )

    async def run(self, *others: Part) -> None:
        """Open the log and serve, with ``others`` beside; raises LogError, OSError, groups."""
        await self.log.start()
        try:
            with FeedServer(self._config.server.state_dir / SOCKET_NAME) as server:
                _LOG.info("replica runs", server=self._config.server.name, index=self.machine.index)
                async with self._group as group:
                    for part in (*self._parts(server), *others):
                        group.create_task(part())
        finally:
            await self.log.stop()

    def _parts(self, server: FeedServer) -> list[Part]:
        return [
            partial(garbage.collect, whole_every=WHOLE_EVERY),
            partial(self.feeder.serve, server),
            self.lease.run,
            self._found,
            self._publish,
            self._count,
            self._keep_tunnels,
            self._keep_clock,
            self._tell_seen,
        ]

    def _spawn(self, part: Coroutine[Any, Any, None]) -> object:
        """Run a part beside the others; while they end it is dropped, as by a dead server."""
        try:
            return self._group.create_task(part)
        except RuntimeError:  # the group ends; it has no other way to say so
            part.close()
            return None

    def _granted(self, until: float) -> None:
        self._caught_up.set()
        self.feeder.lease(until)

    def _restored(self) -> None:
        self._queue.rebuild(self.machine.state.registrations.items())

    async def _found(self) -> None:
        """Found the cluster where there is none: every server tries, one takes effect."""
        cluster_id = os.urandom(16)
        while not self.machine.state.founded:
            if await self.log.read_barrier() is not None and not self.machine.state.founded:
                wall = datetime.now(UTC).isoformat(timespec="seconds")
                await self._propose(bootstrap_command(self._config, cluster_id, wall))
            await asyncio.sleep(BOOTSTRAP_RETRY_S * random.uniform(0.5, 1.5))  # noqa: S311
        state = self.machine.state
        _LOG.info(
            "cluster founded",
            servers=",".join(sorted(state.servers)),
            overlay=" ".join(map(str, state.overlay)),
        )
        if set(state.overlay) != set(self._config.overlay.prefixes):
            _LOG.warning("the overlay of this configuration is not the cluster's, which holds")

    async def _publish(self) -> None:
        while True:
            self.log.publish(self.note().encode())
            await asyncio.sleep(PUBLISH_S)

    async def _count(self) -> None:
        """Keep what the note says of the agents that can be reached."""
        while True:
            began = now()
            self._reachable = await self._tunnels.reachable()
            rest = REACHABLE_REST * (now() - began)
            await asyncio.sleep(min(max(REACHABLE_S, rest), REACHABLE_MOST_S))

    async def _keep_tunnels(self) -> None:
        """Leave the tunnels as they are until this server has caught up.

        Before that its table may be empty or old: tunnels that stand would be torn down.
        """
        await self._caught_up.wait()
        await self._tunnels.run()

    async def _keep_clock(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            status = self.log.status()
            term = status.term if status.role is Role.LEADER else None
            command = self._clock.tick(now(), term, self.machine.state, self._queue)
            if command is not None:
                await self._propose(command)

    async def _tell_seen(self) -> None:
        while True:
            await asyncio.sleep(seen.PERIOD_S)
            for batch in self.seen.drain():
                if not await self._propose(batch):
                    self.seen.put_back(batch.peers)

    async def _propose(self, command: Command) -> bool:
        try:
            proposal = await self.core.proposer.propose(command)
        except NotReadByAllError:
            self.core.counters.count("housekeeping.needs_upgrade")
            return False
        if proposal.outcome is not Outcome.APPLIED:
            self.core.counters.count("housekeeping.not_committed")
            return False
        applied = proposal.result
        if isinstance(applied, Applied) and isinstance(applied.result, Refused):
            _LOG.debug("refused", command=type(command).__name__, reason=applied.result)
        return True
