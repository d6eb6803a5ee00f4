"""The commands of ``wgmap-chaos lab``."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from wgmap.errors import ConflictError, NotFoundError
from wgmap_chaos.lab import census, environment, inventory, removal
from wgmap_chaos.lab import topology as topologies
from wgmap_chaos.lab.bringup import bring_up
from wgmap_chaos.lab.daemons import Daemons
from wgmap_chaos.lab.environment import Environments
from wgmap_chaos.lab.errors import LabError
from wgmap_chaos.lab.interruption import interruptible, undisturbed
from wgmap_chaos.lab.inventory import Inventory
from wgmap_chaos.lab.locking import locked
from wgmap_chaos.lab.relay import Counters, Quality, RelayControl
from wgmap_chaos.lab.topology import Host, Topology
from wgmap_chaos.lab.underlay import RELAY_NAME, Underlay
from wgmap_chaos.lab.waiting import Deadline

UP_S = 120.0
HOST_S = 4.0  # more for each host above the usual number
USUAL_HOSTS = 7
HostT = TypeVar("HostT", bound=Host)


def up(
    directory: Path,
    servers: int,
    agents: int,
    quality: Quality,
    environments: Environments = environment.nothing,
) -> Inventory:
    """Make a lab and leave it running; undo everything if that fails.

    ``environments`` says what each host's daemon finds in its environment beside our own.
    Raises ConfigError for numbers out of bounds, ConflictError when there is a lab already,
    LabError.
    """
    topology = topologies.plan(directory, servers, agents)
    _require_root()
    topology.paths.directory.mkdir(parents=True, exist_ok=True)
    with locked(topology.paths.directory) as lock, interruptible():
        if topology.paths.inventory.exists():
            raise ConflictError(f"there is a lab in {topology.paths.directory}; end it first")
        removal.remove(topology.id, topology.paths)  # what an interrupted command left
        with ExitStack() as undo:
            undo.callback(_undo, topology)
            made = _up(topology, quality, lock, environments)
            undo.pop_all()
    return made


def _up(topology: Topology, quality: Quality, lock: int, environments: Environments) -> Inventory:
    deadline = Deadline(UP_S + HOST_S * max(0, len(topology.hosts) - USUAL_HOSTS))
    _make_directories(topology)
    for host in topology.hosts:
        environment.add(topology.paths, host.name, environments(topology, host))
    underlay = Underlay(topology, lock)
    underlay.make()
    if not quality.perfect:
        underlay.set(quality)
    controls = bring_up(topology, Daemons(topology, deadline))
    made = census.take(topology, controls)
    inventory.write(topology.paths.inventory, made)
    return made


def _make_directories(topology: Topology) -> None:
    paths = topology.paths
    for path in (*paths.perishable, paths.logs):
        path.mkdir(mode=0o755, exist_ok=True)
    for old in paths.logs.glob("*.log"):
        old.unlink()
    for host in topology.hosts:
        paths.state(host.name).mkdir(mode=0o700)


def _undo(topology: Topology) -> None:
    undisturbed()
    removal.remove(topology.id, topology.paths)


def down(directory: Path) -> None:
    """End the lab in a directory, or what is left of one; there may be none. Raises LabError."""
    _require_root()
    paths = topologies.paths(directory)
    if not paths.directory.is_dir():
        # Deleted by hand, and the lock with it; the names remain.
        removal.remove(topologies.lab_id(directory), paths)
        return
    with locked(paths.directory):
        removal.remove(topologies.lab_id(directory), paths)


def set_quality(
    directory: Path,
    delay_ms: float | None = None,
    loss_percent: float | None = None,
    duplicate_percent: float | None = None,
    jitter_ms: float | None = None,
) -> Quality:
    """Change what the underlay of a running lab does (see ``Quality``); None: as it is.

    Raises NotFoundError, LabError.
    """
    _require_root()
    with _running(directory) as (topology, _, lock):
        underlay = Underlay(topology, lock)
        changes = {
            "delay_ms": delay_ms, "loss_percent": loss_percent,
            "duplicate_percent": duplicate_percent, "jitter_ms": jitter_ms,
        }  # fmt: skip
        given = {name: value for name, value in changes.items() if value is not None}
        wanted = replace(underlay.quality(), **given)
        underlay.set(wanted)
    return wanted


def relayed(directory: Path) -> Counters:
    """Return what the relay of a running lab has done so far; raises LabError."""
    return RelayControl(topologies.paths(directory).socket(RELAY_NAME)).status().counters


def divert(directory: Path, source: str, target: str, extra_ms: float) -> None:
    """Make what one host of a running lab sends to another later; 0: not any more.

    Raises NotFoundError, LabError.
    """
    _require_root()
    if source == target:
        raise LabError(f"{source} sends nothing to itself")
    with _running(directory) as (topology, _, lock):
        one, other = _chosen(topology.hosts, (source, target))
        Underlay(topology, lock).divert(one, other, extra_ms)


def start_servers(directory: Path, names: Sequence[str]) -> Inventory:
    """Start dead servers again (all, or those named): same state, interfaces kept.

    They answer when this returns, and know a leader if enough of them run. Raises
    NotFoundError, LabError.
    """
    _require_root()
    with _running(directory) as (topology, old, _):
        chosen = _chosen(topology.servers, names)
        daemons = Daemons(topology, Deadline(UP_S))
        for server in chosen:
            daemons.start_server(server)
        daemons.wait_servers(chosen)
        if daemons.majority_runs():
            daemons.wait_leader(chosen)
        return _rewrite(topology, old)


def start_agents(directory: Path, names: Sequence[str]) -> Inventory:
    """Start dead agents again (all, or those named): same state, interfaces kept.

    They answer when this returns; they are registered later, or never while no server answers.
    Raises NotFoundError, LabError.
    """
    _require_root()
    with _running(directory) as (topology, old, _):
        chosen = _chosen(topology.agents, names)
        daemons = Daemons(topology, Deadline(UP_S))
        for agent in chosen:
            daemons.start_agent(agent)
        for agent in chosen:
            daemons.wait_answering(agent)
        return _rewrite(topology, old)


def _rewrite(topology: Topology, old: Inventory) -> Inventory:
    fresh = census.take(topology, {agent.name: agent.control for agent in old.agents})
    inventory.write(topology.paths.inventory, fresh)
    return fresh


@contextmanager
def _running(directory: Path) -> Iterator[tuple[Topology, Inventory, int]]:
    """Hold the lock of a complete lab; raises NotFoundError when there is none."""
    paths = topologies.paths(directory)
    if not paths.directory.is_dir():
        raise NotFoundError(f"no lab in {paths.directory}: there is no such directory")
    with locked(paths.directory) as lock:
        found = inventory.read(paths.inventory)
        topology = topologies.plan(directory, len(found.servers), len(found.agents))
        yield topology, found, lock


def _chosen(hosts: Iterable[HostT], names: Sequence[str]) -> list[HostT]:
    by_name = {host.name: host for host in hosts}
    for name in names:
        if name not in by_name:
            raise NotFoundError(f"no {name!r} in this lab; there is {', '.join(by_name)}")
    return [by_name[name] for name in dict.fromkeys(names)] if names else list(by_name.values())


def _require_root() -> None:
    if os.geteuid():
        raise LabError("a lab wants root: network namespaces and WireGuard interfaces")
