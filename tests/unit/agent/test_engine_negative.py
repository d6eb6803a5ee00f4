"""Negative answers beside what is known by other ways."""

from support.agent_sim.host import ip_packet
from support.agent_values import SERVERS, make_engine, net, record
from wgmap.lisp import codec
from wgmap.lisp.messages import Action as Act
from wgmap.lisp.messages import Eid, MapNotify, MapReply, MapRequest, Record
from wgmap_agent.engine.engine import Engine
from wgmap_agent.engine.types import Action, Refuse, Send

MS1, MS2, *_ = (info.control_address for info in SERVERS)
HOST = net("10.66.2.1/32")
PACKET = ip_packet(net("10.66.1.1/32").network_address, HOST.network_address, b"x")


def nobody(*, authoritative: bool) -> Record:
    """Say that nobody has the host."""
    return Record(Eid(HOST, 7), ttl_min=1, action=Act.SEND_MAP_REQUEST, authoritative=authoritative)


def asked(actions: list[Action]) -> int:
    """Return the nonce of the question for the host."""
    for action in actions:
        if isinstance(action, Send):
            message = codec.decode(action.datagram)
            if isinstance(message, MapRequest) and message.records[0].eid.prefix == HOST:
                return message.nonce
    raise AssertionError("not asked")


def refusals(actions: list[Action]) -> list[Action]:
    return [action for action in actions if isinstance(action, Refuse)]


def pushed_between(engine: Engine) -> list[Action]:
    """Ask; an unsure denial comes, a push of a wider mapping, and then a sure denial."""
    nonce = asked(engine.packet(1.0, PACKET))
    unsure = MapReply(nonce, (nobody(authoritative=False),))
    actions = engine.datagram(1.01, MS1, codec.encode(unsure))
    wide = record("10.66.2.0/24")
    actions += engine.datagram(1.02, MS1, codec.encode(MapNotify(77, (wide,))))
    sure = MapReply(nonce, (nobody(authoritative=True),))
    return actions + engine.datagram(1.03, MS2, codec.encode(sure))


def test_a_denial_that_is_later_than_a_push_refuses_nothing() -> None:
    engine = make_engine()
    assert not refusals(pushed_between(engine))
    assert engine._plane.negative.unknown(1.1) == ()  # what it has once the flow is over
    assert not refusals(engine.packet(1.1, PACKET))
    status = engine.status(1.2)
    assert [peer.eids for peer in status.peers] == [("10.66.2.0/24",)]
    assert status.counters["now.held_packets"] == 2


def test_a_denial_alone_refuses() -> None:
    engine = make_engine()
    nonce = asked(engine.packet(1.0, PACKET))
    sure = MapReply(nonce, (nobody(authoritative=True),))
    assert refusals(engine.datagram(1.03, MS2, codec.encode(sure)))
    assert refusals(engine.packet(1.1, PACKET))
