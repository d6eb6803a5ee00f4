"""What of the data device is read: all of it now and then, else only the peers in doubt."""

from support.agent_values import (
    HIGH_KEY,
    LOW_KEY,
    SERVERS,
    device_state,
    make_engine,
    net,
    peer_state,
    record,
    unread_engine,
)
from wgmap.lisp import codec
from wgmap.lisp.messages import MapNotify
from wgmap.wg.keys import PublicKey
from wgmap_agent.engine.engine import Engine
from wgmap_agent.engine.types import Action, ConfigurePeers, ReadPeers, Tunnel

WALL = 1_700_000_000.0
SETTLED = peer_state(HIGH_KEY, allowed_ips=(net("10.66.9.1/32"),), last_handshake=WALL)
WHOLE = ReadPeers(Tunnel.DATA)
ONE = ReadPeers(Tunnel.DATA, frozenset({LOW_KEY}))


def with_a_settled_peer() -> Engine:
    engine = unread_engine()
    engine.peers_read(0.0, WHOLE, device_state(SETTLED), WALL)
    return engine


def push(engine: Engine, now: float) -> None:
    """Have a peer that is to call us."""
    datagram = codec.encode(MapNotify(77, (record(),)))
    engine.datagram(now, SERVERS[0].control_address, datagram)


def readings(actions: list[Action]) -> list[Action]:
    return [one for one in actions if isinstance(one, ReadPeers) and one.tunnel is Tunnel.DATA]


def configured(actions: list[Action]) -> set[PublicKey]:
    changes = (one.peers for one in actions if isinstance(one, ConfigurePeers))
    return {peer.key for peers in changes for peer in peers}


def until_asked(engine: Engine, now: float) -> tuple[float, Action]:
    """Let time pass until the data device is to be read."""
    while not (asked := readings(engine.timer(now))):
        deadline = engine.deadline()
        assert deadline is not None
        now = max(now + 1e-3, deadline)
    return now, asked[0]


def test_only_who_is_in_doubt_is_read_and_the_others_are_left_alone() -> None:
    engine = with_a_settled_peer()
    push(engine, 0.3)
    now, asked = until_asked(engine, 0.3)
    assert asked == ONE
    assert now < 1.0
    came = peer_state(rx_bytes=148)
    actions = engine.peers_read(now, ONE, device_state(came), WALL)
    assert HIGH_KEY not in configured(actions)
    now, asked = until_asked(engine, now)
    assert asked == ONE
    stood = peer_state(last_handshake=WALL, rx_bytes=148)
    actions = engine.peers_read(now, ONE, device_state(stood), WALL)
    assert engine.counters["peer.stands"] == 1
    assert engine.counters["peer.added_again"] == engine.counters["peer.removed_unknown"] == 0
    now, asked = until_asked(engine, now)
    assert asked == WHOLE
    assert 2.0 <= now < 2.2, "when it was to be read anyway"


def test_one_of_those_that_the_device_lost_is_added_again() -> None:
    engine = with_a_settled_peer()
    push(engine, 0.3)
    now, _ = until_asked(engine, 0.3)
    actions = engine.peers_read(now, ONE, device_state(), WALL)
    assert configured(actions) == {LOW_KEY}
    assert engine.counters["peer.added_again"] == 1


def test_a_device_that_was_empty_is_read_whole_once_it_has_peers() -> None:
    engine = make_engine()
    engine.peers_read(0.0, WHOLE, device_state(), WALL)
    push(engine, 5.0)
    now, asked = until_asked(engine, 5.0)
    assert asked == ONE
    stood = peer_state(last_handshake=WALL, rx_bytes=148)
    engine.peers_read(now, ONE, device_state(stood), WALL)
    later, asked = until_asked(engine, now)
    assert asked == WHOLE
    assert later - now < 2.5


def test_before_the_first_reading_all_is_read() -> None:
    engine = unread_engine()
    engine.failed(0.1, WHOLE, OSError("gone"))
    push(engine, 0.2)
    _, asked = until_asked(engine, 0.3)
    assert asked == WHOLE
