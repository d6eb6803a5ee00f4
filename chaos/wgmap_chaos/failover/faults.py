"""What can happen to a map server, each until its block ends."""

import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TypeAlias

from wgmap_chaos.faults import processes
from wgmap_chaos.lab import commands, removal, shell
from wgmap_chaos.lab.inventory import Inventory, ServerEntry
from wgmap_chaos.lab.waiting import Deadline

SLOW_MS = 150.0  # more, each way: several times what the other servers take
_TABLE = "netdev wgmap_black_hole"

Fault: TypeAlias = Callable[[Path, Inventory, ServerEntry], AbstractContextManager[None]]


@contextmanager
def all_killed(directory: Path, servers: Sequence[ServerEntry]) -> Iterator[None]:
    """Kill every process of servers as a crash does, and start them again."""
    pids = [pid for server in servers for pid in _processes(server)]
    try:
        processes.send(pids, signal.SIGKILL)
        gone = Deadline(10.0)
        gone.wait(lambda: not any(map(removal.alive, pids)), lambda: "the servers are gone")
        yield
    finally:
        commands.start_servers(directory, [server.name for server in servers])


def killed(directory: Path, _lab: Inventory, server: ServerEntry) -> AbstractContextManager[None]:
    """Kill a server."""
    return all_killed(directory, [server])


@contextmanager
def stopped(_directory: Path, _lab: Inventory, server: ServerEntry) -> Iterator[None]:
    """Have a server's processes stand still (SIGSTOP): sockets stay open and nobody reads them."""
    pids = _processes(server)
    try:
        processes.send(pids, signal.SIGSTOP)
        yield
    finally:
        processes.send(pids, signal.SIGCONT)


@contextmanager
def black_holed(_directory: Path, _lab: Inventory, server: ServerEntry) -> Iterator[None]:
    """Drop all that a server sends and all that comes for it; nobody is told."""
    port = server.underlay_port
    chains = "".join(
        f'chain {hook} {{ type filter hook {hook} device "{port}" priority 0; drop; }}\n'
        for hook in ("ingress", "egress")
    )
    try:
        _nft(server, f"table {_TABLE} {{\n{chains}}}\n")
        yield
    finally:
        _nft(server, f"add table {_TABLE}\ndelete table {_TABLE}\n")


@contextmanager
def slow(directory: Path, lab: Inventory, server: ServerEntry) -> Iterator[None]:
    """Make every way from and to a server longer by SLOW_MS."""
    others = [host.name for host in lab.hosts if host.name != server.name]
    ways = [way for name in others for way in ((server.name, name), (name, server.name))]
    try:
        for way in ways:
            commands.divert(directory, *way, SLOW_MS)
        yield
    finally:
        for way in ways:
            commands.divert(directory, *way, 0)


FAULTS: Mapping[str, Fault] = {
    "killed": killed,
    "black-holed": black_holed,
    "stopped": stopped,
    "slow": slow,
}


def _processes(server: ServerEntry) -> list[int]:
    return [pid for pid in server.pids.values() if pid is not None]


def _nft(server: ServerEntry, script: str) -> None:
    shell.run(shell.inside(server.netns, ["nft", "-f", "-"]), text=script)
