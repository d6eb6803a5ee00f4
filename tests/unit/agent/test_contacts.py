"""The steps of first contacts, as an operator sees them."""

import ipaddress

import pytest

from support.agent_values import (
    LOW_KEY,
    SERVERS,
    WALL,
    device_state,
    peer_state,
    record,
    unread_engine,
)
from wgmap.lisp import codec
from wgmap.lisp.messages import MapReply, MapRequest
from wgmap_agent.engine.packets import echo_request
from wgmap_agent.engine.types import Action, ContactStep, ReadPeers, Send, Stamp, Tunnel
from wgmap_agent.runner.contacts import MAX_CONTACTS, Contacts

OWN = ipaddress.ip_address("10.66.1.1")
FAR = ipaddress.ip_address("10.66.2.1")


def test_the_steps_of_a_contact_are_stamped_in_their_order() -> None:
    ticks = iter(range(100))
    contacts = Contacts(lambda: 10 + next(ticks) / 1000)

    def do(actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Stamp):
                contacts.stamp(action)

    engine = unread_engine()
    actions = engine.packet(9.0, echo_request(OWN, FAR, 1))
    do(actions)
    request = codec.decode(next(a.datagram for a in actions if isinstance(a, Send)))
    assert isinstance(request, MapRequest)
    answer = codec.encode(MapReply(request.nonce, (record(),)))
    do(engine.datagram(10.0, SERVERS[0].control_address, answer))
    engine.timer(10.1)
    stood = peer_state(LOW_KEY, last_handshake=WALL - 0.05)
    do(engine.peers_read(10.1, ReadPeers(Tunnel.DATA), device_state(stood), WALL))
    steps = contacts.of(FAR)
    assert {step for step, _ in steps} == set(ContactStep)
    assert dict(steps)[ContactStep.CAPTURED] == 9.0
    assert dict(steps)[ContactStep.STANDS] == pytest.approx(10.05)
    order = [step for step, _ in steps if step not in (ContactStep.STANDS, ContactStep.ANSWERED)]
    assert order == [s for s in ContactStep if s in order]


def test_a_new_contact_replaces_the_last_and_the_oldest_make_room() -> None:
    contacts = Contacts(lambda: 5.0)
    contacts.stamp(Stamp((FAR,), ContactStep.CAPTURED, 1.0))
    contacts.stamp(Stamp((FAR,), ContactStep.ASKED, 2.0))
    contacts.stamp(Stamp((FAR,), ContactStep.ASKED, 3.0))  # the first time counts
    assert contacts.of(FAR)[-1] == (ContactStep.ASKED, 2.0)
    contacts.stamp(Stamp((FAR,), ContactStep.CAPTURED, 4.0))
    assert contacts.of(FAR) == [(ContactStep.CAPTURED, 4.0)]
    for number in range(MAX_CONTACTS):
        contacts.stamp(Stamp((FAR + 1 + number,), ContactStep.CAPTURED))
    assert contacts.of(FAR) == []
    assert contacts.of(FAR + 1) == [(ContactStep.CAPTURED, 5.0)]


def test_what_was_not_captured_is_no_contact() -> None:
    contacts = Contacts(lambda: 5.0)
    contacts.stamp(Stamp((FAR,), ContactStep.PEER))
    assert contacts.of(FAR) == []
