"""A lab for tests: three map servers and four agents over real WireGuard.

    def test_something(lab: Lab) -> None:
        source, target = lab.file.agents[:2]
        assert lab.ping(source, target) is not None

The fixture ``lab`` lasts for the whole session, so leave it as you found it: set delay and loss
back to 0, start what you ended. A test that wants a lab of its own takes ``running_lab``.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

from wgmap.addresses import IPAddress
from wgmap_agent.runner import statussocket
from wgmap_chaos.demo.ping import first_reply_ms
from wgmap_chaos.lab import inventory, observation, removal, topology
from wgmap_chaos.lab.inventory import AgentEntry, Inventory, ServerEntry
from wgmap_chaos.lab.waiting import Deadline

T = TypeVar("T")
COMMAND_S = 120.0


def program(name: str) -> str:
    """Path of one of wgmap's programs."""
    return str(Path(sys.executable).parent / name)


def execute(
    *argv: str, timeout_s: float = COMMAND_S, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, whatever its exit code."""
    return subprocess.run(
        argv,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        env={**os.environ, **(env or {})},
    )


def chaos(
    directory: Path, *arguments: str, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run ``wgmap-chaos lab`` on a directory."""
    argv = [program("wgmap-chaos"), "lab", *arguments, "--dir", str(directory)]
    return execute(*argv, env=env)


def wait_until(condition: Callable[[], T | None], what: str, timeout_s: float = 20.0) -> T:
    """Return the first true result; raises LabError with ``what`` after the deadline."""
    return Deadline(timeout_s).wait(condition, lambda: what)


def leftovers(directory: Path) -> list[str]:
    """Whatever of a lab exists: namespaces, interfaces, sockets, processes, files."""
    lab = topology.lab_id(directory)
    paths = topology.paths(directory)
    found = [f"namespace {name}" for name in removal.namespaces(lab)]
    found += [f"interface {name}" for name in removal.links(lab)]
    found += [f"socket {path}" for path in removal.sockets(lab)]
    found += [f"file {path}" for path in (paths.inventory, *paths.perishable) if path.exists()]
    return found + [f"process {line}" for line in _processes_of(lab, paths.directory)]


def _processes_of(lab: str, directory: Path) -> list[str]:
    """Living processes whose command line names the lab: its interfaces or its files."""
    marks = (topology.interface_prefix(lab), topology.netns_prefix(lab), f"{directory}/")
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if any(mark in line for mark in marks) and removal.alive(int(entry.name)):
            found.append(f"{entry.name}: {line}")
    return found


@dataclass(frozen=True)
class Lab:
    """A lab that runs."""

    directory: Path

    @property
    def file(self) -> Inventory:
        """``lab.json`` as it is now."""
        return inventory.read(topology.paths(self.directory).inventory)

    def chaos(self, *arguments: str) -> str:
        """Run ``wgmap-chaos lab`` on this lab; it must succeed."""
        done = chaos(self.directory, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    @contextmanager
    def underlay(self, *, delay_ms: float = 0.0, loss_percent: float = 0.0) -> Iterator[None]:
        """Give the underlay one-way delay and loss for a while."""
        try:
            self.chaos("set", "--delay", str(delay_ms), "--loss", str(loss_percent))
            yield
        finally:
            self.chaos("set", "--delay", "0", "--loss", "0")

    def run(self, netns: str, *argv: str, timeout_s: float = 30.0, check: bool = True) -> str:
        """Run a program in a namespace and return its output."""
        done = execute("ip", "netns", "exec", netns, *argv, timeout_s=timeout_s)
        if check:
            assert done.returncode == 0, f"{argv}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def ping(
        self,
        source: AgentEntry,
        target: AgentEntry,
        eid: IPAddress | None = None,
        wait_s: float = 5.0,
    ) -> float | None:
        """Send one packet to an EID of the target; return its round trip in ms, None if lost."""
        return first_reply_ms(source.netns, str(eid or target.eids[0]), wait_s)

    def forget(self, one: AgentEntry, other: AgentEntry) -> None:
        """Make two agents strangers: neither has a tunnel to the other then."""
        for agent, peer in ((one, other), (other, one)):
            # Asked on the socket: starting the program takes longer than what is measured.
            statussocket.request(agent.socket, {"op": "forget", "eid": str(peer.eids[0])})

    def wgmap(self, *arguments: str, server: ServerEntry | None = None, check: bool = True) -> str:
        """Run the operator's program on one server (the first) and return its output."""
        socket = (server or self.file.servers[0]).admin_socket
        done = execute(program("wgmap"), "--socket", str(socket), *arguments)
        if check:
            assert done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stderr}"
        return done.stdout

    def status(self, server: ServerEntry | None = None) -> Any:
        """Return ``wgmap status --json`` of one server (the first)."""
        return json.loads(self.wgmap("status", "--json", server=server))

    def resolve(self, eid: IPAddress, server: ServerEntry | None = None) -> Any:
        """Return ``wgmap resolve --json`` of one server (the first), found or not."""
        return json.loads(self.wgmap("resolve", str(eid), "--json", server=server, check=False))

    def agent_status(self, agent: AgentEntry) -> Any:
        """Return ``wgmap-agent status --json``; None when the agent does not answer."""
        return observation.agent_status(agent.socket)


@contextmanager
def running_lab(directory: Path, *options: str) -> Iterator[Lab]:
    """Bring a lab up, and down again in any case; nothing may be left."""
    try:
        done = chaos(directory, "up", *options)
        assert done.returncode == 0, done.stderr
        yield Lab(directory)
    finally:
        ended = chaos(directory, "down")
    assert ended.returncode == 0, ended.stderr
    assert leftovers(directory) == []


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One lab for the session: servers ms1 to ms3, agents a1 to a4.

    ``WGMAP_LAB=DIR`` takes one that runs already, and leaves it running.
    """
    if "WGMAP_LAB" in os.environ:
        yield Lab(Path(os.environ["WGMAP_LAB"]))
        return
    with running_lab(tmp_path_factory.mktemp("lab")) as running:
        yield running
