"""Held packets and the states of first contact."""

import ipaddress
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.agent_values import LOW_KEY
from wgmap_agent.engine.contact import FirstContact
from wgmap_agent.engine.counters import Counters
from wgmap_agent.engine.flows import TRANSITIONS, Event, Flow, State, Step
from wgmap_agent.engine.holding import Holding
from wgmap_agent.engine.settings import Settings
from wgmap_agent.engine.types import Inject, Refuse

A = ipaddress.ip_address("10.66.2.1")
B = ipaddress.ip_address("10.66.3.1")


def test_the_newest_is_dropped_where_a_destination_is_full() -> None:
    counters = Counters()
    holding = Holding(Settings(held_per_destination=2), counters)
    assert [holding.hold(A, bytes([n])) for n in range(3)] == [True, True, False]
    assert holding.packets(A) == (b"\0", b"\1")
    assert counters["held.dropped_destination_full"] == 1


def test_the_newest_is_dropped_where_the_whole_is_full() -> None:
    counters = Counters()
    holding = Holding(Settings(held_packets=2), counters)
    assert [holding.hold(A, b"1"), holding.hold(B, b"2"), holding.hold(B, b"3")] == [
        True,
        True,
        False,
    ]
    assert counters["held.dropped_all_full"] == 1
    assert holding.take(A) == (b"1",)
    assert holding.hold(B, b"3")
    assert holding.take(A) == ()


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans())))
def test_the_total_is_always_what_is_held(steps: list[tuple[int, bool]]) -> None:
    holding = Holding(Settings(held_per_destination=3, held_packets=7), Counters())
    for number, put in steps:
        destination = ipaddress.ip_address(f"10.66.2.{number}")
        if put:
            holding.hold(destination, b"x")
        else:
            holding.take(destination)
        assert holding.total == sum(len(holding.packets(d)) for d in holding.destinations()) <= 7


# -------------------------------------------------------------------------------------- the table


def test_every_live_state_can_end_and_takes_packets() -> None:
    for state in (State.ASKING, State.WAITING, State.SENDING):
        assert (state, Event.PACKET) in TRANSITIONS
        assert TRANSITIONS[state, Event.GAVE_UP][0] is State.GONE


def test_nothing_leaves_gone_and_nothing_enters_new() -> None:
    assert all(before is not State.GONE for before, _ in TRANSITIONS)
    assert all(after is not State.NEW for after, _ in TRANSITIONS.values())


def test_a_flow_that_is_gone_keeps_no_copies() -> None:
    keeps = {Step.HOLD, Step.HOLD_AND_ASK, Step.HOLD_AND_SEND, Step.SEND_COPIES}
    assert all(step not in keeps for after, step in TRANSITIONS.values() if after is State.GONE)


@pytest.mark.parametrize(("state", "event"), list(product(State, Event)))
def test_an_event_without_meaning_changes_nothing(state: State, event: Event) -> None:
    flow = Flow(A, 0.0, state)
    step = flow.on(event)
    if (state, event) not in TRANSITIONS:
        assert (flow.state, step) == (state, Step.NOTHING)


# ---------------------------------------------------------------------------------- first contact


def opened(contact: FirstContact, *packets: bytes) -> Flow:
    flow = contact.open(0.0, A)
    assert flow is not None
    for packet in packets:
        contact.packet(0.0, flow, packet, Event.PACKET)
    contact.assign(flow, LOW_KEY)
    return flow


def test_copies_are_sent_again_after_a_kick_and_forgotten_when_the_session_is_proved() -> None:
    contact = FirstContact(Settings(), Counters())
    flow = opened(contact, b"1", b"2")
    assert contact.on(0.0, flow, Event.FOUND) == [Inject((b"1", b"2"))]
    assert contact.packet(0.0, flow, b"3", Event.PACKET) == [Inject((b"3",))]
    assert contact.all_of(0.0, LOW_KEY, Event.KICKED) == [Inject((b"1", b"2", b"3"))]
    assert contact.all_of(0.0, LOW_KEY, Event.STANDS) == []
    assert len(contact) == contact.held == 0  # nothing waits any more
    assert contact.holding.total == 3
    assert contact.proved(0.0, LOW_KEY) == []
    assert contact.get(A) is None
    assert contact.holding.total == 0


def test_copies_are_sent_again_in_a_session_that_replaces_a_new_one() -> None:
    contact = FirstContact(Settings(), Counters())
    flow = opened(contact, b"1", b"2")
    contact.on(0.0, flow, Event.FOUND)
    contact.all_of(0.0, LOW_KEY, Event.STANDS)
    assert contact.packet(0.0, flow, b"late", Event.PACKET) == [Inject((b"late",))]
    assert contact.all_of(0.0, LOW_KEY, Event.KICKED) == [Inject((b"1", b"2"))]
    assert contact.all_of(0.0, LOW_KEY, Event.STANDS) == []
    assert contact.proved(0.0, LOW_KEY) == []
    assert contact.get(A) is None


@pytest.mark.parametrize("event", [Event.PEER_GONE, Event.GAVE_UP])
def test_nobody_is_refused_whose_packets_all_went_out(event: Event) -> None:
    contact = FirstContact(Settings(), Counters())
    flow = opened(contact, b"1")
    contact.on(0.0, flow, Event.FOUND)
    contact.all_of(0.0, LOW_KEY, Event.STANDS)
    assert contact.all_of(0.0, LOW_KEY, event) == []
    assert contact.get(A) is None
    assert contact.holding.total == 0


def test_copies_are_kept_for_a_while() -> None:
    contact = FirstContact(Settings(kept_s=5.0, hold_s=15.0), Counters())
    flow = opened(contact, b"1")
    contact.on(0.0, flow, Event.FOUND)
    contact.all_of(1.0, LOW_KEY, Event.STANDS)
    assert contact.deadline() == 6.0
    assert contact.expire(5.9) == []
    assert contact.holding.total == 1
    assert contact.expire(6.0) == []
    assert contact.holding.total == 0
    assert contact.deadline() is None


@pytest.mark.parametrize("bound", [Settings(max_flows=1), Settings(held_packets=1)])
def test_copies_make_room_for_others(bound: Settings) -> None:
    counters = Counters()
    contact = FirstContact(bound, counters)
    flow = opened(contact, b"1")
    contact.on(0.0, flow, Event.FOUND)
    contact.all_of(0.0, LOW_KEY, Event.STANDS)
    other = contact.open(0.0, B)
    assert other is not None
    contact.packet(0.0, other, b"2", Event.PACKET)
    assert contact.get(A) is None
    assert contact.held == 1
    assert "flow.refused_too_many" not in counters.all()
    assert "held.dropped_all_full" not in counters.all()


def test_the_higher_key_holds_until_it_stands_or_is_released() -> None:
    for event in (Event.STANDS, Event.RELEASED):
        contact = FirstContact(Settings(), Counters())
        flow = opened(contact, b"1")
        assert contact.on(0.0, flow, Event.FOUND_BOTH_PULL) == []
        assert contact.packet(0.0, flow, b"2", Event.PACKET) == []
        assert contact.on(0.0, flow, event) == [Inject((b"1", b"2"))]


def test_senders_are_told_of_a_negative_answer() -> None:
    contact = FirstContact(Settings(), Counters())
    flow = opened(contact, b"1", b"2")
    actions = contact.on(0.0, flow, Event.NOT_FOUND)
    assert [action.packet for action in actions if isinstance(action, Refuse)] == [b"1", b"2"]
    assert contact.get(A) is None


def test_nothing_is_held_for_ever() -> None:
    contact = FirstContact(Settings(hold_s=5), Counters())
    opened(contact, b"1")
    assert contact.deadline() == 5
    assert contact.expire(4.9) == []
    assert len(contact.expire(5)) == 1
    assert contact.deadline() is None
    assert contact.holding.total == 0


def test_there_are_no_more_flows_than_the_bound() -> None:
    counters = Counters()
    contact = FirstContact(Settings(max_flows=1), counters)
    assert contact.open(0.0, A) is not None
    assert contact.open(0.0, B) is None
    assert counters["flow.refused_too_many"] == 1
