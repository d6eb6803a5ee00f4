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


class ServerEntry(_Entry):
    """A map server; addresses are without length."""

    name: str
    netns: str
    underlay: ipaddress.IPv4Address | ipaddress.IPv6Address
    control: ipaddress.IPv6Address
    mesh: ipaddress.IPv6Address
    underlay_port: str
    control_interface: str
    mesh_interface: str
    pids: Pids  # supervisor, replica, responder
    wireguard: Pids  # of the process behind each interface
    state_dir: Path
    admin_socket: Path
    config: Path


class AgentEntry(_Entry):
    """An agent; underlay and eids are IPv4 first, all addresses without length."""

    name: str
    netns: str
    underlay: tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, ...]
    underlay_port: str
    control: ipaddress.IPv6Address
    eids: tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, ...]
    data_interface: str
    control_interface: str
    tun: str
    pids: Pids  # agent
    wireguard: Pids
    state_dir: Path
    socket: Path
    config: Path


class Inventory(_Entry):
    """The whole file."""

    servers: tuple[ServerEntry, ...]
    agents: tuple[AgentEntry, ...]
    underlay_bridge: UnderlayBridge

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
