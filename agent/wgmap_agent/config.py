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

    name: NameField = Field(description="As enrolled.")
    instance: int = Field(default=0, ge=0, lt=1 << 32, description="As enrolled.")
    prefixes: tuple[NetworkField, ...] = Field(
        min_length=1, max_length=64, description="What this host owns (enrolled)."
    )
    overlay: tuple[NetworkField, ...] = Field(
        min_length=1, max_length=64, description="What goes through tunnels."
    )
    state_dir: Path = Field(
        default=Path("/var/lib/wgmap-agent"), description="Keys (0600), what it learnt, cache."
    )
    socket: Path = Field(
        default=Path("/run/wgmap-agent/agent.sock"), description="Where `wgmap-agent status` asks."
    )
    ttl_min: int = Field(
        default=60,
        gt=0,
        le=1440,
        description="Of its mappings; after three without a sign of life they expire (minutes).",
    )
    idle_s: float = Field(
        default=900.0, gt=0, description="A tunnel without data for so long leaves (seconds)."
    )
    # WireGuard itself gives up after 90 s.
    pending_s: float = Field(
        default=90.0, gt=0, description="A peer that never answers is tried for so long (seconds)."
    )
    unanswered_s: float = Field(
        default=10.0,
        ge=1,
        le=60,
        description="First packets are held for so long while no map server answers (seconds).",
    )

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

    interface: InterfaceField = Field(default="wgm-tun", description="Its name.")
    mtu: int = Field(default=1420, ge=1280, le=65535, description="Less behind PPPoE.")


class ControlSection(Section):
    """``[control]``: the WireGuard interface to the map servers."""

    interface: InterfaceField = Field(default="wgm-ctl", description="Its name.")
    port: Port = Field(default=CONTROL_PORT, description="Its UDP port on the underlay.")
    prefix: Network6Field = Field(
        default=ipaddress.IPv6Network("fd77:676d:6170::/64"), description="As the servers'."
    )
    keepalive_s: int = Field(
        default=25,
        ge=0,
        lt=65536,
        description="Keeps a NAT open; 0: off (seconds).",
    )


class DataSection(Section):
    """``[data]``: the WireGuard interface to other agents."""

    interface: InterfaceField = Field(default="wgm-data", description="Its name.")
    port: Port = Field(default=DATA_PORT, description="Its UDP port on the underlay.")
    second_interface: InterfaceField | None = Field(
        default=None,
        description="Beside the first while the data key rotates, then they have taken turns;"
        " absent: the first one's name with a 2.",
    )
    second_port: Port = Field(
        default=SECOND_DATA_PORT, description="Its port: firewalls must let both through."
    )
    rotate_hours: float = Field(
        default=0.0, ge=0, le=87600, description="Age of a data key; 0: rotated on command (hours)."
    )
    rotate_grace_s: float = Field(
        default=600.0,
        ge=1,
        le=86400,
        description="Peers that nobody told of the new key are waited for so long (seconds).",
    )

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

    listen: ListenField | None = Field(
        default=None, description="A unix socket's path (0660), or ADDRESS:PORT; absent: nowhere."
    )


class LocatorEntry(Section):
    """``[[underlay.locator]]``: how own addresses in a prefix are registered (RFC 9301, 5.4)."""

    prefix: NetworkField = Field(description="Own addresses in it; the first that fits counts.")
    priority: int = Field(
        default=1, ge=0, le=255, description="The lowest is used; 255: not registered."
    )
    weight: int = Field(
        default=100, ge=0, le=100, description="The share among those of one priority."
    )


class UnderlaySection(Section):
    """``[underlay]``: how the tunnels' own packets find their way."""

    locator: tuple[LocatorEntry, ...] = Field(
        default=(),
        max_length=64,
        description="Without one the first address of each family has priority 1, the others 2.",
    )
    way_back_s: float = Field(
        default=60.0,
        ge=1,
        le=3600,
        description="A peer's first address that was silent is tried again so soon, then half as"
        " often each time (seconds).",
    )
    fwmark: int = Field(
        default=0,
        ge=0,
        lt=1 << 32,
        description="Mark of the WireGuard sockets, where the overlay covers addresses of the"
        " underlay; 0: it does not, and is routed in the main table.",
    )
    table: int = Field(
        default=4342, gt=255, lt=1 << 31, description="Where the overlay is routed with a mark."
    )


class CacheSection(Section):
    """``[cache]``: peers used lately, reachable while no map server answers with authority."""

    enabled: bool = Field(
        default=True, description="Kept on disk, recalled when no server answers at all."
    )
    peers: int = Field(default=1024, gt=0, le=16384, description="How many of them.")
    hours: float = Field(
        default=24.0,
        gt=0,
        le=8760,
        description="Since a server in touch with the quorum confirmed them; it also limits what"
        " servers out of touch with it say (hours).",
    )


class ServerEntry(Section):
    """``[[server]]``: a map server."""

    name: NameField = Field(description="Its name in the cluster.")
    control_key: KeyField = Field(description="Public key of its control interface.")
    endpoint: EndpointField = Field(description="Its underlay address and control port.")
    control_address: Address6Field = Field(description="Its address inside the control tunnel.")


class AgentConfig(Section):
    """The whole file."""

    agent: AgentSection
    tun: TunSection = TunSection()
    control: ControlSection = ControlSection()
    data: DataSection = DataSection()
    underlay: UnderlaySection = UnderlaySection()
    cache: CacheSection = CacheSection()
    metrics: MetricsSection = MetricsSection()
    server: tuple[ServerEntry, ...] = Field(
        min_length=1, max_length=32, description="Map servers; the others are learnt."
    )

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
