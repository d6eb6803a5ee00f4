"""Values that the tests of the agent's engine share."""

import ipaddress
import random
from ipaddress import IPv6Address

from wgmap.addresses import Endpoint, IPNetwork
from wgmap.lisp.messages import Eid, Locator, Record
from wgmap.wg.device import DeviceState, PeerState
from wgmap.wg.keys import PublicKey
from wgmap_agent.engine.engine import Engine
from wgmap_agent.engine.settings import Settings
from wgmap_agent.engine.types import Identity, ReadPeers, SavedState, ServerInfo, Tunnel

OWN_KEY = PublicKey(b"m" * 32)
LOW_KEY = PublicKey(b"a" * 32)
HIGH_KEY = PublicKey(b"z" * 32)
UNDERLAY = (ipaddress.ip_address("192.0.2.11"),)
WALL = 1_700_000_000.0


def net(text: str) -> IPNetwork:
    return ipaddress.ip_network(text)


def server(number: int) -> ServerInfo:
    return ServerInfo(
        f"ms{number}",
        PublicKey(bytes([number]) * 32),
        Endpoint(ipaddress.ip_address(f"192.0.2.{number}"), 51822),
        IPv6Address(f"fd77:676d:6170::{number}"),
    )


SERVERS = (server(1), server(2), server(3))
IDENTITY = Identity(
    name="a1",
    instance=7,
    prefixes=(net("10.66.1.0/24"), net("fd66::1/128")),
    overlay=(net("10.66.0.0/16"), net("fd66::/64")),
    control_address=IPv6Address("fd77:676d:6170::aa"),
    data_key=OWN_KEY,
    data_port=51820,
    servers=SERVERS,
    ttl_min=60,
    idle_s=900.0,
)


def unread_engine(settings: Settings | None = None, saved: SavedState | None = None) -> Engine:
    """An engine that was started at 0 and has not read its devices yet."""
    engine = Engine(IDENTITY, saved or SavedState(), random.Random(1), settings)
    engine.start(0.0, UNDERLAY)
    return engine


def make_engine(settings: Settings | None = None, saved: SavedState | None = None) -> Engine:
    """An engine that was started at 0; a former run left nothing on its data device."""
    engine = unread_engine(settings, saved)
    read_nothing(engine)
    return engine


def read_nothing(engine: Engine) -> None:
    """Let an engine that was started at 0 read an empty data device."""
    engine.peers_read(0.0, ReadPeers(Tunnel.DATA), device_state(), WALL)


def locator(key: bytes = LOW_KEY, address: str = "192.0.2.12", **fields: object) -> Locator:
    return Locator(ipaddress.ip_address(address), 51820, key, **fields)  # type: ignore[arg-type]


def record(prefix: str = "10.66.2.1/32", *locators: Locator, **fields: object) -> Record:
    """A positive, authoritative record of our instance unless the fields say otherwise."""
    values: dict[str, object] = {"ttl_min": 60, "authoritative": True, "version": 5, **fields}
    return Record(Eid(net(prefix), 7), locators or (locator(),), **values)  # type: ignore[arg-type]


def peer_state(key: PublicKey = LOW_KEY, **fields: object) -> PeerState:
    values: dict[str, object] = {
        "endpoint": Endpoint(ipaddress.ip_address("192.0.2.12"), 51820),
        "allowed_ips": (net("10.66.2.1/32"),),
        "keepalive_s": 0,
        "last_handshake": None,
        "rx_bytes": 0,
        "tx_bytes": 0,
        **fields,
    }
    return PeerState(key, **values)  # type: ignore[arg-type]


def device_state(*peers: PeerState) -> DeviceState:
    return DeviceState("wgm-data", OWN_KEY, 51820, {peer.key: peer for peer in peers})
