"""``lab.json`` as its readers see it (the demo, tests, chaos)."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from wgmap.errors import ConfigError

LAB_FILE = "lab.json"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LabServer(_Part):
    """A map server of a lab; addresses without a length, pids of wgmap's own processes."""

    name: str
    netns: str
    underlay: list[str]
    control: str
    mesh: str
    underlay_port: str
    control_interface: str
    mesh_interface: str
    pids: dict[str, int]
    wireguard: dict[str, int]
    state_dir: Path
    admin_socket: Path
    config: Path


class LabAgent(_Part):
    """An agent of a lab."""

    name: str
    netns: str
    underlay: list[str]  # IPv4 first
    underlay_port: str
    control: str
    eids: list[str]
    data_interface: str
    control_interface: str
    tun: str
    pids: dict[str, int]
    wireguard: dict[str, int]
    state_dir: Path
    socket: Path
    config: Path


class LabBridge(_Part):
    """The underlay's switch."""

    netns: str
    name: str


class LabFile(_Part):
    """The whole file."""

    servers: list[LabServer]
    agents: list[LabAgent]
    underlay_bridge: LabBridge

    @classmethod
    def load(cls, directory: Path) -> "LabFile":
        """Read DIR/lab.json; raises ConfigError."""
        path = directory / LAB_FILE
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            msg = f"{path}: {error.strerror}"
            raise ConfigError(msg) from error
        except ValidationError as error:
            msg = f"{path}: {error}"
            raise ConfigError(msg) from None

    def server(self, name: str) -> LabServer:
        """Return the server with that name; raises KeyError."""
        return {server.name: server for server in self.servers}[name]

    def agent(self, name: str) -> LabAgent:
        """Return the agent with that name; raises KeyError."""
        return {agent.name: agent for agent in self.agents}[name]


def as_json(value: BaseModel) -> dict[str, Any]:
    """Return what belongs into the file."""
    return value.model_dump(mode="json")
