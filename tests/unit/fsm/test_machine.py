"""The rules of the state machine, one by one."""

import ipaddress
from dataclasses import replace

import pytest

from support.fsm import (
    CONTROL,
    ORIGIN,
    Driver,
    address_of,
    bootstrap,
    enrol,
    key,
    locator,
    prefix,
    register,
    server,
)
from wgmap_cluster.fsm.commands import (
    Advance,
    Enrol,
    Expire,
    Offer,
    Register,
    RemoveServer,
    Revoke,
    Seen,
    SetPeer,
    SetServer,
)
from wgmap_cluster.fsm.results import Reason, Taken
from wgmap_cluster.fsm.rows import Meta, Table


@pytest.fixture
def driver() -> Driver:
    """Return a founded cluster with peer a1 enrolled."""
    made = Driver()
    made.done(enrol("a1", 1, "10.66.1.0/24", "fd66::1/128"))
    return made


def versions(driver: Driver) -> dict[str, int]:
    return {
        str(ipaddress.ip_network((raw[1:], raw[0]))): row.version
        for (_, raw), row in driver.machine.state.mappings.items()
    }


# Bootstrap and servers.


def test_bootstrap_only_on_an_empty_state() -> None:
    driver = Driver(founded=False)
    assert driver.refused(enrol("a1", 1, "10.66.1.1/32")) is Reason.NOT_FOUNDED
    driver.done(bootstrap())
    state = driver.machine.state
    assert state.control_prefix == CONTROL
    assert [str(each) for each in state.overlay] == ["10.66.0.0/16", "fd66::/64"]
    assert sorted(state.servers) == ["ms1", "ms2", "ms3"]
    assert driver.refused(replace(bootstrap(), cluster_id=b"d" * 16)) is Reason.NOT_EMPTY
    assert state.meta[Meta.CLUSTER_ID] == b"c" * 16


def test_servers_come_and_go_but_the_last_stays() -> None:
    driver = Driver()
    driver.done(SetServer("ms4", server(4), ORIGIN))
    assert not driver.done(SetServer("ms4", server(4), ORIGIN)).changed
    assert driver.refused(SetServer("ms5", server(4), ORIGIN)) is Reason.INVALID
    for name in ("ms1", "ms2", "ms3"):
        driver.done(RemoveServer(name, ORIGIN))
    assert driver.refused(RemoveServer("ms1", ORIGIN)) is Reason.UNKNOWN_SERVER
    assert driver.refused(RemoveServer("ms4", ORIGIN)) is Reason.INVALID


# Enrolment.


def test_enrolment_is_idempotent_and_conflicts_are_typed(driver: Driver) -> None:
    again = driver.done(enrol("a1", 1, "fd66::1/128", "10.66.1.0/24"))
    assert not again.changed
    assert again.peer is not None
    assert again.peer.control_address == address_of(key(1))
    assert driver.refused(enrol("a1", 1, "10.66.2.0/24")) is Reason.NAME_TAKEN
    assert driver.refused(enrol("b", 1, "10.66.2.0/24")) is Reason.KEY_TAKEN
    assert driver.refused(enrol("b", 2, "10.66.1.0/24")) is Reason.PREFIX_TAKEN
    client = Enrol("b", 0, (), ORIGIN, control_address=address_of(key(1)))
    assert driver.refused(client) is Reason.ADDRESS_TAKEN
    assert driver.refused(replace(client, control_address=b"")) is Reason.INVALID
    assert driver.refused(replace(client, control_key=key(7))) is Reason.INVALID
    driver.done(enrol("b", 2, "10.66.1.0/24", instance=7))


def test_an_agent_cannot_be_enrolled_as_a_server(driver: Driver) -> None:
    its = server(1)
    client = Enrol("b", 0, (), ORIGIN, control_address=its.control_address)
    assert driver.refused(client) is Reason.ADDRESS_TAKEN
    for stolen in (its.control_key, its.mesh_key):
        assert driver.refused(Enrol("b", 0, (), ORIGIN, control_key=stolen)) is Reason.KEY_TAKEN


@pytest.mark.parametrize(
    "text",
    [
        *("fd77:676d:6170::/48", "fd77:676d:6170:0:1::/80", "fd77:6d65::99/128", "::/0"),
        *("0.0.0.0/0", "224.0.1.0/24", "127.0.0.1/32", "169.254.1.0/24", "255.255.255.255/32"),
        *("fe80::1/128", "ff02::/16", "::1/128"),
    ],
)
def test_prefixes_of_the_cluster_and_not_unicast_are_refused(driver: Driver, text: str) -> None:
    assert driver.refused(enrol("b", 2, text)) is Reason.PREFIX_RESERVED
    change = SetPeer("a1", ORIGIN, prefixes=(prefix(text),))
    assert driver.refused(change) is Reason.PREFIX_RESERVED


def test_set_peer_takes_mappings_outside_the_new_prefixes(driver: Driver) -> None:
    driver.registered(register(1, 1, "10.66.1.7/32", "fd66::1/128"))
    driver.done(SetPeer("a1", ORIGIN, prefixes=(prefix("fd66::1/128"),)))
    assert list(versions(driver)) == ["fd66::1/128"]
    assert driver.refused(register(1, 1, "10.66.1.7/32", "fd66::1/128")) is Reason.NOT_OWNER
    assert not driver.done(SetPeer("a1", ORIGIN)).changed
    assert driver.refused(SetPeer("nobody", ORIGIN)) is Reason.UNKNOWN_PEER


def test_a_new_control_key_starts_the_peer_anew(driver: Driver) -> None:
    driver.registered(register(1, 50, "fd66::1/128"))
    driver.done(SetPeer("a1", ORIGIN, control_key=key(9)))
    assert versions(driver) == {}
    assert driver.refused(register(1, 51, "fd66::1/128")) is Reason.UNKNOWN_PEER
    assert driver.registered(register(9, 1, "fd66::1/128")).taken is Taken.APPLIED
    assert versions(driver) == {"fd66::1/128": 2}


def test_a_more_specific_enrolment_takes_the_mappings_inside_it(driver: Driver) -> None:
    driver.registered(register(1, 1, "10.66.1.0/24", "10.66.1.64/32"))
    driver.done(enrol("b", 2, "10.66.1.64/26"))
    assert list(versions(driver)) == ["10.66.1.0/24"]
    assert driver.refused(register(1, 2, "10.66.1.64/32")) is Reason.NOT_OWNER
    driver.registered(register(2, 1, "10.66.1.64/32"))
    assert versions(driver)["10.66.1.64/32"] == 2, "newer than what the former owner had"


def test_audit_tells_who_did_what_and_no_secret(driver: Driver) -> None:
    driver.done(Enrol("oor", 0, (), ORIGIN, control_address=b"\x0a\0\0\1", lisp_key=b"hush!"))
    driver.done(Revoke("a1", ORIGIN))
    rows = driver.machine.state.audit
    assert [(n, row.action, row.subject) for n, row in rows.items()] == [
        (1, "bootstrap", (b"c" * 16).hex()),
        (2, "enrol", "a1"),
        (3, "enrol", "oor"),
        (4, "revoke", "a1"),
    ]
    assert "hush" not in repr(rows)
    assert rows[2].operator == "root"


# Revocation.


def test_revocation_removes_and_reserves(driver: Driver) -> None:
    driver.registered(register(1, 1, "fd66::1/128", data=42))
    done = driver.done(Revoke("a1", ORIGIN))
    state = driver.machine.state
    assert (done.revocation, state.revocation) == (1, 1)
    assert versions(driver) == {}
    assert state.revocations[1].key == key(42)
    assert prefix("fd66::1/128") in state.revocations[1].prefixes
    again = driver.done(Revoke("a1", ORIGIN))
    assert (again.changed, again.revocation) == (False, 1)
    assert driver.refused(register(1, 2, "fd66::1/128")) is Reason.REVOKED
    assert driver.refused(SetPeer("a1", ORIGIN)) is Reason.REVOKED
    assert driver.refused(enrol("a1", 3, "10.66.9.0/24")) is Reason.NAME_TAKEN
    assert driver.refused(enrol("a1b", 1, "10.66.9.0/24")) is Reason.KEY_TAKEN
    driver.done(enrol("successor", 3, "fd66::1/128"))
    driver.registered(register(3, 1, "fd66::1/128"))
    assert versions(driver) == {"fd66::1/128": 2}
    assert driver.refused(Revoke("nobody", ORIGIN)) is Reason.UNKNOWN_PEER
    assert state.counts()[:3] == (1, 1, 1)


def test_a_revocation_on_condition_is_decided_where_it_is_applied(driver: Driver) -> None:
    driver.done(SetPeer("a1", ORIGIN, limit=3))  # somebody else was faster
    assert driver.refused(Revoke("a1", ORIGIN, if_revision=1)) is Reason.CHANGED
    assert driver.machine.state.revocation == 0
    assert driver.done(Revoke("a1", ORIGIN, if_revision=2)).changed
    for revision in (2, 3, 9):  # repeated, it is no failure: what was wanted is so
        assert not driver.done(Revoke("a1", ORIGIN, if_revision=revision)).changed


# Registration.


def test_only_the_owner_registers_exactly_or_inside(driver: Driver) -> None:
    driver.done(enrol("b", 2, "10.66.2.0/24"))
    driver.registered(register(1, 1, "10.66.1.0/24", "10.66.1.9/32"))
    assert driver.refused(register(1, 2, "10.66.2.0/24")) is Reason.NOT_OWNER
    assert driver.refused(register(1, 2, "10.66.0.0/16")) is Reason.NOT_OWNER
    assert driver.refused(register(1, 2, "10.66.1.0/24", "10.66.2.1/32")) is Reason.NOT_OWNER
    assert driver.refused(register(9, 2, "10.66.1.0/24")) is Reason.UNKNOWN_PEER
    other = replace(register(1, 2, "10.66.1.0/24"), instance=5)
    assert driver.refused(other) is Reason.NOT_OWNER
    twice = register(1, 2, "10.66.1.0/24", "10.66.1.0/24")
    assert driver.refused(twice) is Reason.INVALID
    keyless = replace(register(1, 2, "10.66.1.0/24"), key=b"")
    assert driver.refused(keyless) is Reason.INVALID
    bare = replace(keyless, key=key(9), offers=(Offer(prefix("10.66.1.0/24"), (), 60),))
    assert driver.refused(bare) is Reason.INVALID


def test_nonces_greater_equal_older(driver: Driver) -> None:
    first = register(1, 10, "fd66::1/128")
    assert driver.registered(first).taken is Taken.APPLIED
    assert driver.registered(first).taken is Taken.REPEATED
    older = driver.registered(register(1, 9, "fd66::1/128", at="192.0.2.99"))
    assert (older.taken, older.nonce) == (Taken.OLDER, 10)
    assert older.mappings[0][1].locators == (locator("192.0.2.11"),)
    changed = driver.registered(register(1, 10, "fd66::1/128", at="192.0.2.99"))
    assert (changed.taken, changed.nonce) == (Taken.OLDER, 10)
    newer = driver.registered(register(1, 2**64 - 1, "fd66::1/128", at="192.0.2.99"))
    assert (newer.taken, newer.mappings[0][1].version) == (Taken.APPLIED, 2)


def test_a_register_replaces_the_whole_set_and_ttl_zero_withdraws(driver: Driver) -> None:
    driver.registered(register(1, 1, "10.66.1.1/32", "10.66.1.2/32"))
    driver.registered(register(1, 2, "10.66.1.2/32", "fd66::1/128"))
    assert sorted(versions(driver)) == ["10.66.1.2/32", "fd66::1/128"]
    driver.registered(register(1, 3, "10.66.1.2/32", ttl=0))
    assert versions(driver) == {}
    assert driver.machine.state.registrations["a1"].ttl_min == 0


def test_versions_rise_with_changes_only_and_survive(driver: Driver) -> None:
    driver.registered(register(1, 1, "10.66.1.0/24", "fd66::1/128"))
    driver.registered(register(1, 2, "10.66.1.0/24", "fd66::1/128"))
    assert versions(driver) == {"10.66.1.0/24": 1, "fd66::1/128": 1}
    driver.registered(register(1, 3, "10.66.1.0/24", "fd66::1/128", data=5))
    assert set(versions(driver).values()) == {2}
    driver.registered(register(1, 4, "10.66.1.0/24", data=5))
    driver.registered(register(1, 5, "10.66.1.0/24", "fd66::1/128", data=5))
    assert versions(driver) == {"10.66.1.0/24": 2, "fd66::1/128": 3}


def test_plain_clients_register_prefix_by_prefix_in_any_nonce_order(driver: Driver) -> None:
    address = ipaddress.ip_address("10.0.0.1").packed
    prefixes = (prefix("10.66.5.0/24"), prefix("10.66.6.0/24"))
    driver.done(
        Enrol("oor", 0, prefixes, ORIGIN, control_address=address, lisp_key=b"s", lisp_auth=1)
    )

    def one(nonce: int, each: bytes, at: str = "192.0.2.50") -> Register:
        return Register(address, nonce, 0, b"", (Offer(each, (locator(at),), 10),))

    assert driver.registered(one(900, prefixes[0])).taken is Taken.APPLIED
    assert driver.registered(one(3, prefixes[1])).taken is Taken.APPLIED
    assert len(driver.machine.state.mappings) == 2
    assert driver.registered(one(2, prefixes[0])).taken is Taken.REPEATED
    assert driver.registered(one(1, prefixes[0], "192.0.2.51")).taken is Taken.APPLIED
    assert versions(driver) == {"10.66.5.0/24": 2, "10.66.6.0/24": 1}


# Clock and expiry.


def test_expiry_spares_who_was_seen(driver: Driver) -> None:
    driver.done(enrol("b", 2, "10.66.2.0/24"))
    driver.registered(register(1, 1, "fd66::1/128", ttl=1))
    driver.registered(register(2, 1, "10.66.2.0/24", ttl=1))
    driver.done(Advance(100.0))
    driver.done(Advance(60.0))
    assert driver.machine.state.clock == 100.0
    assert driver.done(Seen(("b", "nobody", "b"))).count == 1
    assert driver.done(Expire(179.9, ("a1", "b"))).count == 0
    assert driver.done(Expire(180.0, ("a1", "b", "nobody"))).count == 1
    assert versions(driver) == {"10.66.2.0/24": 1}
    back = driver.registered(register(1, 1, "fd66::1/128", ttl=1))
    assert back.taken is Taken.REPEATED, "the nonce outlives the mapping"
    assert versions(driver) == {"10.66.2.0/24": 1, "fd66::1/128": 2}
    assert driver.machine.state.registrations["a1"].seen == 180.0


# Queries.


def test_the_longest_prefix_wins_within_an_instance(driver: Driver) -> None:
    driver.registered(register(1, 1, "10.66.1.0/24", "10.66.1.128/25"))
    state = driver.machine.state
    found = state.resolve(0, ipaddress.ip_address("10.66.1.200"))
    assert found is not None
    assert found.prefix == prefix("10.66.1.128/25")
    wide = state.resolve(0, ipaddress.ip_address("10.66.1.3"))
    assert wide is not None
    assert wide.prefix == prefix("10.66.1.0/24")
    assert state.resolve(1, ipaddress.ip_address("10.66.1.3")) is None
    assert state.resolve(0, ipaddress.ip_address("10.66.2.3")) is None
    assert state.resolve(0, ipaddress.ip_address("fd66::1")) is None
    assert state.peer_by_key(key(1)) == state.peer_by_address(address_of(key(1))) == "a1"


def test_listeners_hear_every_command_with_its_index(driver: Driver) -> None:
    heard: list[tuple[int, list[Table]]] = []
    driver.machine.listen(lambda i, applied: heard.append((i, [c.table for c in applied.changes])))
    driver.registered(register(1, 1, "fd66::1/128"))
    driver.apply_bytes(b"\xff nonsense")
    assert heard == [(3, [Table.MAPPINGS, Table.REGISTRATIONS]), (4, [])]
    assert driver.machine.index == 4
