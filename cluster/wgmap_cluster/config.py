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
    ListenField,
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

    name: NameField = Field(description="As in the bootstrap section.")
    state_dir: Path = Field(description="Log, snapshots, keys (0600), the cluster's id.")
    admin_socket: Path = Field(
        default=Path("/run/wgmap/admin.sock"), description="Where `wgmap` asks (0600)."
    )
    staleness_s: float = Field(
        default=1.0, gt=0.1, le=60, description="No answer with authority is older (seconds)."
    )


class ControlSection(Section):
    """``[control]``: the WireGuard interface that agents reach, or an unprotected listener."""

    interface: InterfaceField = Field(default="wgm-ctl", description="WireGuard to the agents.")
    port: Port = Field(default=CONTROL_PORT, description="Its UDP port on the underlay.")
    prefix: Network6Field = Field(
        default=ipaddress.IPv6Network("fd77:676d:6170::/64"),
        description="Control addresses, a /64; for good: they derive from it.",
    )
    unprotected: bool = Field(
        default=False, description="LISP without WireGuard: load tests and plain LISP clients only."
    )
    listen: EndpointField | None = Field(
        default=None, description="Where; goes with `unprotected`."
    )

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

    interface: InterfaceField = Field(default="wgm-mesh", description="WireGuard between servers.")
    port: Port = Field(default=MESH_PORT, description="Its UDP port on the underlay.")
    raft_port: Port = Field(default=RAFT_PORT, description="TCP port of the log, inside the mesh.")


class BootstrapServer(Section):
    """``[[bootstrap.server]]``: a server of the first set; read only while the state is empty.

    ``endpoint`` is an underlay ADDRESS (the control and mesh ports are this server's own) or
    ADDRESS:PORT, the port being the control interface's.
    """

    name: NameField = Field(description="Its name in the cluster.")
    mesh_key: KeyField = Field(description="Public key of its mesh interface.")
    control_key: KeyField = Field(description="Public key of its control interface.")
    endpoint: EndpointField | AddressField = Field(
        description="Its underlay address, or that with the control port."
    )
    mesh_address: AddressField = Field(description="Its address in the mesh.")
    control_address: Address6Field = Field(description="Its address for agents.")

    @property
    def underlay(self) -> IPAddress:
        """The underlay address without a port."""
        return self.endpoint.address if isinstance(self.endpoint, Endpoint) else self.endpoint


class BootstrapSection(Section):
    """``[bootstrap]``: what an empty cluster starts from."""

    server: tuple[BootstrapServer, ...] = Field(
        default=(), description="The first servers; the same on all of them."
    )


class OverlaySection(Section):
    """``[overlay]``: the address space inside the tunnels; what agents route and accept."""

    prefixes: tuple[NetworkField, ...] = Field(
        default=(), description="Read only while the state is empty; later see `wgmap instance`."
    )


class MetricsSection(Section):
    """``[metrics]``: where Prometheus and probes of health ask."""

    listen: ListenField | None = Field(
        default=None, description="A unix socket's path (0660), or ADDRESS:PORT; absent: nowhere."
    )


class AdminSection(Section):
    """``[admin]``: the admin API over TCP, with TLS and tokens; absent: the unix socket alone."""

    listen: EndpointField | None = Field(
        default=None, description="ADDRESS:PORT; goes with the other three keys."
    )
    certificate: Path | None = Field(default=None, description="Certificate chain (PEM).")
    key: Path | None = Field(default=None, description="Its private key (PEM, 0600).")
    tokens: Path | None = Field(
        default=None, description="File of `wgmap token make` (0600); read anew when it changes."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        given = {
            each is not None for each in (self.listen, self.certificate, self.key, self.tokens)
        }
        if len(given) > 1:
            msg = "listen, certificate, key and tokens go together"
            raise ValueError(msg)
        return self


class ServerConfig(Section):
    """The whole file."""

    server: ServerSection
    control: ControlSection = ControlSection()
    mesh: MeshSection | None = None
    bootstrap: BootstrapSection = BootstrapSection()
    overlay: OverlaySection = OverlaySection()
    metrics: MetricsSection = MetricsSection()
    admin: AdminSection = AdminSection()

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
