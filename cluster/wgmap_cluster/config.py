"""The server's configuration file (TOML)."""

import ipaddress
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from wgmap.addresses import CONTROL_PREFIX_LENGTH, Endpoint, IPAddress
from wgmap.config import (
    Address6Field,
    AddressField,
    EndpointField,
    InterfaceField,
    KeyField,
    NameField,
    Network6Field,
    NetworkField,
    Section,
)

CONTROL_PORT = 51822
MESH_PORT = 51821
RAFT_PORT = 4343
Port = Annotated[int, Field(gt=0, lt=65536)]


class ServerSection(Section):
    """``[server]``: who this server is and where its state lies."""

    name: NameField
    state_dir: Path
    admin_socket: Path = Path("/run/wgmap/admin.sock")
    staleness_s: Annotated[float, Field(gt=0.1, le=60)] = 1.0


class ControlSection(Section):
    """``[control]``: the WireGuard interface that agents reach, or an unprotected listener."""

    interface: InterfaceField = "wgm-ctl"
    port: Port = CONTROL_PORT
    prefix: Network6Field = ipaddress.IPv6Network("fd77:676d:6170::/64")
    unprotected: bool = False
    listen: EndpointField | None = None  # only with unprotected

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.prefix.prefixlen != CONTROL_PREFIX_LENGTH:
            msg = "prefix must be a /64"
            raise ValueError(msg)
        if self.unprotected != (self.listen is not None):
            msg = "listen and unprotected = true go together"
            raise ValueError(msg)
        return self


class MeshSection(Section):
    """``[mesh]``: the WireGuard interface between servers; absent on a single server."""

    interface: InterfaceField = "wgm-mesh"
    port: Port = MESH_PORT
    raft_port: Port = RAFT_PORT


class BootstrapServer(Section):
    """``[[bootstrap.server]]``: a server of the first set; read only while the state is empty.

    ``endpoint`` is an underlay ADDRESS (the control and mesh ports are this server's own) or
    ADDRESS:PORT, the port being the control interface's.
    """

    name: NameField
    mesh_key: KeyField
    control_key: KeyField
    endpoint: EndpointField | AddressField
    mesh_address: AddressField
    control_address: Address6Field

    @property
    def underlay(self) -> IPAddress:
        """The underlay address without a port."""
        return self.endpoint.address if isinstance(self.endpoint, Endpoint) else self.endpoint


class BootstrapSection(Section):
    """``[bootstrap]``: what an empty cluster starts from."""

    server: tuple[BootstrapServer, ...] = ()


class OverlaySection(Section):
    """``[overlay]``: the address space inside the tunnels; what agents route and accept."""

    prefixes: tuple[NetworkField, ...] = ()


class ServerConfig(Section):
    """The whole file."""

    server: ServerSection
    control: ControlSection = ControlSection()
    mesh: MeshSection | None = None
    bootstrap: BootstrapSection = BootstrapSection()
    overlay: OverlaySection = OverlaySection()

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [server.name for server in self.bootstrap.server]
        if len(set(names)) != len(names):
            msg = "bootstrap.server: two servers with one name"
            raise ValueError(msg)
        if names and self.server.name not in names:
            msg = f"server.name {self.server.name!r} is not among bootstrap.server"
            raise ValueError(msg)
        if len(names) > 1 and self.mesh is None:
            msg = "several bootstrap servers want a [mesh] section"
            raise ValueError(msg)
        return self
