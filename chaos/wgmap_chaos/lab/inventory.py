"""``lab.json``: what a running lab consists of, for tests, tools and people."""

import ipaddress
import json
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from wgmap.errors import NotFoundError
from wgmap_chaos.lab.errors import LabError

EntryT = TypeVar("EntryT", "ServerEntry", "AgentEntry")
# Pids are null where nothing runs.
Pids = dict[str, int | None]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class UnderlayBridge(_Entry):
    """The bridge that joins the hosts."""

    netns: str
    name: str


class HostEntry(_Entry):
    """What servers and agents have in common."""

    name: str
    netns: str
    underlay_port: str
    control_interface: str
    control: ipaddress.IPv6Address
    pids: Pids  # of wgmap's own processes, by role
    wireguard: Pids  # of the process behind each interface
    state_dir: Path
    config: Path


class ServerEntry(HostEntry):
    """A map server; its pids are those of supervisor, replica and responder."""

    underlay: ipaddress.IPv4Address | ipaddress.IPv6Address
    mesh: ipaddress.IPv6Address
    mesh_interface: str
    admin_socket: Path


class AgentEntry(HostEntry):
    """An agent; underlay and eids are addresses without length, IPv4 first."""

    underlay: tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, ...]
    eids: tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, ...]
    data_interface: str
    tun: str
    socket: Path

    @property
    def interfaces(self) -> tuple[str, ...]:
        """Every WireGuard interface that it may have; rotations let two for data take turns."""
        return (self.control_interface, self.data_interface, f"{self.data_interface}2")


class Inventory(_Entry):
    """The whole file."""

    servers: tuple[ServerEntry, ...]
    agents: tuple[AgentEntry, ...]
    underlay_bridge: UnderlayBridge

    @property
    def hosts(self) -> tuple[HostEntry, ...]:
        """Servers, then agents."""
        return (*self.servers, *self.agents)

    def server(self, name: str) -> ServerEntry:
        """Find a server; raises NotFoundError."""
        return _named(self.servers, name, "server")

    def agent(self, name: str) -> AgentEntry:
        """Find an agent; raises NotFoundError."""
        return _named(self.agents, name, "agent")


def _named(entries: tuple[EntryT, ...], name: str, kind: str) -> EntryT:
    for entry in entries:
        if entry.name == name:
            return entry
    raise NotFoundError(f"no {kind} {name!r} in this lab")


def read(path: Path) -> Inventory:
    """Read ``lab.json``; raises NotFoundError or LabError."""
    try:
        return Inventory.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise NotFoundError(f"no lab in {path.parent}: there is no {path.name}") from error
    except (OSError, ValidationError) as error:
        raise LabError(f"{path}: {error}") from error


def write(path: Path, inventory: Inventory) -> None:
    """Replace ``lab.json`` at once; raises OSError."""
    text = json.dumps(inventory.model_dump(mode="json"), indent=2)
    fresh = path.with_suffix(".json.new")
    fresh.write_text(f"{text}\n")
    fresh.replace(path)
