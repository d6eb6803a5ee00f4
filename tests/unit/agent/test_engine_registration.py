"""Map-Registers: numbered, repeated, tried on one server after another."""

import ipaddress
import random
from collections.abc import Sequence

from support.agent_values import IDENTITY, SERVERS, UNDERLAY, locator, record
from wgmap.lisp import codec
from wgmap.lisp.messages import MapNotify, MapRegister, Record
from wgmap_agent.engine.counters import Counters
from wgmap_agent.engine.registration import Registration
from wgmap_agent.engine.servers import Servers
from wgmap_agent.engine.settings import Settings
from wgmap_agent.engine.types import Action, Save, SavedState, Send

SETTINGS = Settings()


class Registering:
    """A registration with everything that it needs."""

    def __init__(self, nonce: int = 0) -> None:
        self.servers = Servers(SERVERS, SETTINGS, random.Random(1))
        self.counters = Counters()
        self.registration = Registration(
            IDENTITY,
            SavedState(nonce),
            self.servers,
            SETTINGS,
            random.Random(2),
            self.counters,
        )

    def notify(self, now: float, to: Send, nonce: int, *records: Record) -> list[Action] | None:
        return self.registration.notify(now, to.server, MapNotify(nonce, records))


def register_in(actions: Sequence[Action]) -> tuple[Send, MapRegister]:
    (send,) = [action for action in actions if isinstance(action, Send)]
    message = codec.decode(send.datagram)
    assert isinstance(message, MapRegister)
    return send, message


def test_the_nonce_is_saved_before_it_is_sent() -> None:
    actions = Registering(41).registration.change(0.0, UNDERLAY)
    assert actions[0] == Save(SavedState(42))
    _, register = register_in(actions)
    assert register.nonce == 42
    assert register.want_notify
    assert [one.eid.prefix for one in register.records] == list(IDENTITY.prefixes)
    assert {one.eid.instance for one in register.records} == {IDENTITY.instance}
    (own,) = register.records[0].locators
    assert (own.address, own.port, own.key) == (UNDERLAY[0], 51820, IDENTITY.data_key)


def test_without_an_underlay_address_nothing_is_registered() -> None:
    registering = Registering()
    assert registering.registration.change(0.0, ()) == []
    assert registering.registration.deadline() is None


def test_silent_servers_are_passed_over() -> None:
    registering = Registering()
    asked = [register_in(registering.registration.change(0.0, UNDERLAY))[0].server]
    for _ in range(5):
        due = registering.registration.deadline()
        assert due is not None
        asked.append(register_in(registering.registration.due(due))[0].server)
    assert set(asked[:3]) == {"ms1", "ms2", "ms3"}
    assert registering.registration.nonce == 1


def test_the_next_server_is_tried_soon_where_one_says_nothing_while_others_do() -> None:
    registering = Registering()
    registration, servers = registering.registration, registering.servers
    for info in SERVERS:
        for _ in range(30):
            servers.sample(info.name, 0.04)
    first, register = register_in(registration.change(1.0, UNDERLAY))
    patience = registration.deadline()
    servers.heard(1.04, next(one.name for one in SERVERS if one.name != first.server))
    hurried = registration.deadline()
    assert patience is not None
    assert hurried is not None
    assert 1.06 <= hurried <= 1.12 < patience
    assert registration.due(hurried - 0.001) == []
    second, again = register_in(registration.due(hurried))
    assert second.server != first.server
    assert (again.nonce, second.datagram) == (register.nonce, first.datagram)
    assert registration.due(hurried) == []
    servers.heard(hurried + 0.05, second.server)  # it lives, and waits for a quorum
    assert registration.due(hurried + 0.1) == []
    assert registering.notify(hurried + 0.1, second, 1, *register.records) == []
    assert registration.is_registered(hurried + 0.1)


def test_a_server_that_answers_something_is_given_the_time_of_a_commit() -> None:
    registering = Registering()
    registration, servers = registering.registration, registering.servers
    register_in(registration.change(1.0, UNDERLAY))
    before = registration.deadline()
    for info in SERVERS:
        servers.heard(1.01, info.name)
    assert registration.deadline() == before


def test_an_unchanged_register_repeats_its_bytes() -> None:
    registering = Registering()
    first, register = register_in(registering.registration.change(0.0, UNDERLAY))
    assert registering.notify(0.1, first, 1, *register.records) == []
    assert registering.registration.is_registered(0.1)
    due = registering.registration.deadline()
    assert due is not None
    assert 40 < due <= 61
    again, _ = register_in(registering.registration.due(due))
    assert again.datagram == first.datagram


def test_a_registration_ends_with_its_ttl() -> None:
    registering = Registering()
    first, register = register_in(registering.registration.change(0.0, UNDERLAY))
    registering.notify(0.1, first, 1, *register.records)
    assert registering.registration.is_registered(3599)
    assert not registering.registration.is_registered(3601)


def test_the_counter_is_recovered_from_a_greater_stored_nonce() -> None:
    registering = Registering()
    first, register = register_in(registering.registration.change(0.0, UNDERLAY))
    actions = registering.notify(0.1, first, 500, *register.records)
    assert actions is not None
    assert actions[0] == Save(SavedState(501))
    second, again = register_in(actions)
    assert again.nonce == 501
    assert again.records == register.records
    assert registering.notify(0.2, second, 501, *register.records) == []
    assert registering.registration.is_registered(0.2)


def test_an_equal_nonce_with_another_content_is_not_ours() -> None:
    registering = Registering()
    first, _ = register_in(registering.registration.change(0.0, UNDERLAY))
    stored = record("10.66.1.0/24", locator(IDENTITY.data_key, "192.0.2.99"))
    actions = registering.notify(0.1, first, 1, stored)
    assert actions is not None
    assert register_in(actions)[1].nonce == 2
    assert not registering.registration.is_registered(0.1)


def test_a_server_may_take_fewer_addresses_than_were_registered() -> None:
    """A host has others (of a container bridge) that the peer is not enrolled with."""
    registering = Registering()
    both = (*UNDERLAY, ipaddress.ip_address("172.17.0.1"))
    first, _ = register_in(registering.registration.change(0.0, both))
    stored = record("10.66.1.0/24", locator(IDENTITY.data_key, str(UNDERLAY[0])))
    assert registering.notify(0.1, first, 1, stored) == []
    assert registering.registration.is_registered(0.1)


def test_an_old_answer_changes_nothing() -> None:
    registering = Registering(10)
    registering.registration.change(0.0, UNDERLAY)
    moved = (ipaddress.ip_address("192.0.2.99"),)
    send, register = register_in(registering.registration.change(0.1, moved))
    old = record("10.66.1.0/24", locator(IDENTITY.data_key, "192.0.2.11"))
    assert registering.notify(0.2, send, 11, old) == []
    assert not registering.registration.is_registered(0.2)
    assert register.nonce == 12


def test_a_notify_of_a_server_that_was_not_asked_is_no_answer() -> None:
    registering = Registering()
    send, register = register_in(registering.registration.change(0.0, UNDERLAY))
    others = [info.name for info in SERVERS if info.name != send.server]
    notify = MapNotify(1, register.records)
    assert registering.registration.notify(0.1, others[0], notify) is None
