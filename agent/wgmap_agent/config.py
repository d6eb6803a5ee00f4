"""The agent's configuration file (TOML), as ``wgmap peer add`` prints it."""

import ipaddress
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from wgmap.config import (
    Address6Field,
    EndpointField,
    InterfaceField,
    KeyField,
    ListenField,
    NameField,
    Network6Field,
    NetworkField,
    Section,
)

MAIN_TABLE = 254
DATA_PORT = 51820
SECOND_DATA_PORT = 51830
CONTROL_PORT = 51822
Port = Annotated[int, Field(gt=0, lt=65536)]


class AgentSection(Section):
    """``[agent]``: who this agent is, what it registers and what it routes."""

    name: NameField
    instance: Annotated[int, Field(ge=0, lt=1 << 32)] = 0
    prefixes: Annotated[tuple[NetworkField, ...], Field(min_length=1, max_length=64)]
    overlay: Annotated[tuple[NetworkField, ...], Field(min_length=1, max_length=64)]
    state_dir: Path = Path("/var/lib/wgmap-agent")
    socket: Path = Path("/run/wgmap-agent/agent.sock")
    ttl_min: Annotated[int, Field(gt=0, le=1440)] = 60
    idle_s: Annotated[float, Field(gt=0)] = 900.0
    # How long a peer is tried that never answers. WireGuard itself gives up after 90 s.
    pending_s: Annotated[float, Field(gt=0)] = 90.0
    # How long packets to a new destination are held while no map server answers.
    unanswered_s: Annotated[float, Field(ge=1, le=60)] = 10.0

    @model_validator(mode="after")
    def _check(self) -> Self:
        for prefix in self.prefixes:
            if not any(
                prefix.version == wide.version and prefix.subnet_of(wide)  # type: ignore[arg-type]
                for wide in self.overlay
            ):
                msg = f"prefix {prefix} is not inside the overlay"
                raise ValueError(msg)
        return self


class TunSection(Section):
    """``[tun]``: the device that catches packets to unknown destinations."""

    interface: InterfaceField = "wgm-tun"
    mtu: Annotated[int, Field(ge=1280, le=65535)] = 1420


class ControlSection(Section):
    """``[control]``: the WireGuard interface to the map servers."""

    interface: InterfaceField = "wgm-ctl"
    port: Port = CONTROL_PORT
    prefix: Network6Field = ipaddress.IPv6Network("fd77:676d:6170::/64")
    keepalive_s: Annotated[int, Field(ge=0, lt=65536)] = 25


class DataSection(Section):
    """``[data]``: the WireGuard interface to other agents."""

    interface: InterfaceField = "wgm-data"
    port: Port = DATA_PORT
    # Beside them while the data key rotates; then they have taken turns. Firewalls must let both
    # ports through. Without a name it is the interface's with a 2 behind it.
    second_interface: InterfaceField | None = None
    second_port: Port = SECOND_DATA_PORT
    rotate_hours: Annotated[float, Field(ge=0, le=87600)] = 0.0  # age of a key; 0: on command only
    # Peers that have not gone over by then (nobody told them) are no longer waited for.
    rotate_grace_s: Annotated[float, Field(ge=1, le=86400)] = 600.0

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.second_name == self.interface or self.second_port == self.port:
            msg = "the second data interface and port must be others than the first"
            raise ValueError(msg)
        return self

    @property
    def second_name(self) -> str:
        """The name of the second interface."""
        return self.second_interface or f"{self.interface[:14]}2"

    @property
    def places(self) -> tuple[tuple[str, int], tuple[str, int]]:
        """Both interfaces with their ports."""
        return (self.interface, self.port), (self.second_name, self.second_port)


class MetricsSection(Section):
    """``[metrics]``: where Prometheus asks."""

    listen: ListenField | None = None  # a unix socket's path, or ADDRESS:PORT; absent: nowhere


class LocatorEntry(Section):
    """``[[underlay.locator]]``: how own addresses in a prefix are registered (RFC 9301, 5.4)."""

    prefix: NetworkField
    priority: Annotated[int, Field(ge=0, le=255)] = 1  # the lowest is used; 255: not registered
    weight: Annotated[int, Field(ge=0, le=100)] = 100  # the share among those of one priority


class UnderlaySection(Section):
    """``[underlay]``: how the tunnels' own packets find their way."""

    # The first that holds an address counts; without one the first address of each family has
    # priority 1 and the others 2.
    locator: Annotated[tuple[LocatorEntry, ...], Field(max_length=64)] = ()
    # A peer with several addresses, of which the first went silent: how soon the way back is tried
    # (then half as often each time).
    way_back_s: Annotated[float, Field(ge=1, le=3600)] = 60.0

    # 0: the overlay is routed in the main table, and must hold no address of the underlay. Else
    # the WireGuard sockets have this mark, and what has it is not looked up in ``table``, where
    # the overlay is routed then.
    fwmark: Annotated[int, Field(ge=0, lt=1 << 32)] = 0
    table: Annotated[int, Field(gt=255, lt=1 << 31)] = 4342


class CacheSection(Section):
    """``[cache]``: peers used lately, reachable while no map server answers with authority."""

    enabled: bool = True  # kept on disk and recalled when no server answers at all
    peers: Annotated[int, Field(gt=0, le=16384)] = 1024
    # Since a server in touch with the quorum last confirmed them. It also limits what servers out
    # of touch with the quorum say.
    hours: Annotated[float, Field(gt=0, le=8760)] = 24.0


class ServerEntry(Section):
    """``[[server]]``: a map server."""

    name: NameField
    control_key: KeyField
    endpoint: EndpointField
    control_address: Address6Field


class AgentConfig(Section):
    """The whole file."""

    agent: AgentSection
    tun: TunSection = TunSection()
    control: ControlSection = ControlSection()
    data: DataSection = DataSection()
    underlay: UnderlaySection = UnderlaySection()
    cache: CacheSection = CacheSection()
    metrics: MetricsSection = MetricsSection()
    server: Annotated[tuple[ServerEntry, ...], Field(min_length=1, max_length=32)]

    @model_validator(mode="after")
    def _check(self) -> Self:
        for server in self.server:
            address = server.endpoint.address
            inside = any(address in prefix for prefix in self.agent.overlay)
            if inside and not self.underlay.fwmark:
                msg = (
                    f"server {server.name} at {address} is inside the overlay: set underlay.fwmark"
                )
                raise ValueError(msg)
        return self

    @property
    def table(self) -> int:
        """The routing table of the overlay."""
        return self.underlay.table if self.underlay.fwmark else MAIN_TABLE
