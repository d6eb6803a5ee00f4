"""The one table prefix -> key, and what is refused of the records of a message."""

import ipaddress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.agent_values import HIGH_KEY, IDENTITY, LOW_KEY, OWN_KEY, locator, net, record
from wgmap.addresses import Endpoint
from wgmap.lisp.messages import Action, Eid, Record
from wgmap.wg.keys import PublicKey
from wgmap_agent.engine.counters import Counters
from wgmap_agent.engine.mappings import Reader, Reading
from wgmap_agent.engine.settings import Settings
from wgmap_agent.engine.table import Claim, Table, Verdict, is_newer

P = net("10.66.2.1/32")


def claim(prefix: str = "10.66.2.1/32", key: PublicKey = LOW_KEY, version: int = 5) -> Claim:
    return Claim(net(prefix), key, version, 100.0)


@pytest.mark.parametrize(
    ("version", "than", "newer"),
    [
        (2, 1, True),
        (1, 2, False),
        (1, 1, False),
        (1, 4095, True),  # wraps
        (4095, 1, False),
        (5, 0, True),
        (0, 5, False),
        (0, 0, False),
    ],
)
def test_versions_compare_as_rfc_9302_says(version: int, than: int, newer: bool) -> None:
    assert is_newer(version, than) is newer


@given(st.integers(1, 4095), st.integers(1, 4095))
def test_of_two_versions_at_most_one_is_newer(one: int, other: int) -> None:
    assert not (is_newer(one, other) and is_newer(other, one))


def test_a_late_claim_never_steals_back() -> None:
    table = Table(Settings())
    assert table.offer(claim(version=5)) is Verdict.NEW
    assert table.offer(claim(key=HIGH_KEY, version=6)) is Verdict.MOVED
    assert table.offer(claim(key=LOW_KEY, version=5)) is Verdict.STALE
    assert table.offer(claim(key=LOW_KEY, version=6)) is Verdict.STALE  # equal, another key
    assert table.offer(claim(key=HIGH_KEY, version=6)) is Verdict.RENEWED
    assert table.prefixes(HIGH_KEY) == (P,)
    assert table.prefixes(LOW_KEY) == ()


def test_the_answer_to_ones_own_refresh_wins() -> None:
    table = Table(Settings())
    table.offer(claim(version=6))
    assert table.offer(claim(key=HIGH_KEY, version=2), wins=True) is Verdict.MOVED


def test_without_versions_the_last_word_counts() -> None:
    table = Table(Settings())
    table.offer(claim(version=0))
    assert table.offer(claim(key=HIGH_KEY, version=0)) is Verdict.MOVED
    assert table.offer(claim(key=HIGH_KEY, version=1)) is Verdict.RENEWED
    assert table.offer(claim(key=LOW_KEY, version=0)) is Verdict.STALE


def test_what_was_withdrawn_comes_back_only_with_a_newer_version() -> None:
    table = Table(Settings())
    table.offer(claim(version=5))
    assert table.withdraw(P, 4) is None  # older than what we have
    assert table.withdraw(P, 6) is not None
    assert table.offer(claim(version=5)) is Verdict.STALE
    assert table.offer(claim(version=6)) is Verdict.STALE
    assert table.offer(claim(version=7)) is Verdict.NEW


def test_withdrawals_are_remembered_in_bounds() -> None:
    table = Table(Settings(max_withdrawn=2))
    for number in range(3):
        table.withdraw(net(f"10.66.3.{number}/32"), 5)
    assert table.offer(claim("10.66.3.0/32")) is Verdict.NEW  # forgotten
    assert table.offer(claim("10.66.3.2/32")) is Verdict.STALE


def test_the_longest_prefix_owns_an_address() -> None:
    table = Table(Settings())
    table.offer(claim("10.66.0.0/17", LOW_KEY))
    table.offer(claim("10.66.2.0/24", HIGH_KEY))
    table.offer(claim("fd66::/65", LOW_KEY))
    for address, key in (
        ("10.66.2.9", HIGH_KEY),
        ("10.66.3.9", LOW_KEY),
        ("10.66.200.1", None),
        ("fd66::9", LOW_KEY),
    ):
        owner = table.owner(ipaddress.ip_address(address))
        assert (owner.key if owner else None) == key


def test_peers_and_prefixes_are_bounded() -> None:
    table = Table(Settings(max_peers=1, max_prefixes_per_peer=2))
    assert table.offer(claim("10.66.2.1/32")) is Verdict.NEW
    assert table.offer(claim("10.66.2.2/32")) is Verdict.NEW
    assert table.offer(claim("10.66.2.3/32")) is Verdict.FULL
    assert table.offer(claim("10.66.2.4/32", HIGH_KEY)) is Verdict.FULL
    assert table.drop_key(LOW_KEY) == (net("10.66.2.1/32"), net("10.66.2.2/32"))
    assert table.offer(claim("10.66.2.4/32", HIGH_KEY)) is Verdict.NEW


prefixes = st.sampled_from(["10.66.2.0/24", "10.66.2.0/25", "10.66.2.1/32", "fd66::2/128"])
offers = st.builds(claim, prefixes, st.sampled_from([LOW_KEY, HIGH_KEY]), st.integers(0, 4))


@given(st.lists(st.tuples(offers, st.sampled_from(["offer", "withdraw", "drop"]))))
def test_owners_and_claims_always_agree(steps: list[tuple[Claim, str]]) -> None:
    table = Table(Settings())
    for one, what in steps:
        if what == "offer":
            table.offer(one)
        elif what == "withdraw":
            table.withdraw(one.prefix, one.version)
        else:
            table.drop_key(one.key)
        owned = {p: key for key in table.owners() for p in table.prefixes(key)}
        assert owned == {c.prefix: c.key for c in table.claims()}
        for prefix in owned:
            owner = table.owner(prefix.network_address)
            assert owner is not None
            assert owner.prefix.prefixlen >= prefix.prefixlen


# ------------------------------------------------------------------------------------- records


def read(*records: Record, families: frozenset[int] = frozenset({4})) -> tuple[Reading, Counters]:
    counters = Counters()
    return Reader(IDENTITY, counters).read(records, families), counters


def test_every_prefix_of_a_peer_is_taken_together() -> None:
    reading, counters = read(record("10.66.2.1/32"), record("fd66::2/128"))
    (offer,) = reading.peers.values()
    assert [one.prefix for one in offer.prefixes] == [net("10.66.2.1/32"), net("fd66::2/128")]
    assert offer.endpoint == Endpoint(ipaddress.ip_address("192.0.2.12"), 51820)
    assert counters.all() == {}


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (replace(record(), eid=Eid(net("10.66.2.1/32"), 8)), "other_instance"),
        (record("192.0.2.0/24"), "outside_overlay"),
        (record("10.0.0.0/8"), "outside_overlay"),  # wider than the overlay
        (record("0.0.0.0/0"), "outside_overlay"),
        (record("fd77:676d:6170::1/128"), "outside_overlay"),  # the control prefix
        (record("10.66.1.0/24"), "own_prefix"),
        (record("10.66.1.7/32"), "own_prefix"),
        (record("10.66.0.0/16"), "own_prefix"),  # around our own
        (record("10.66.2.1/32", locator(OWN_KEY)), "own_key"),
        (record("10.66.2.1/32", locator(priority=255)), "no_usable_locator"),
        (record("10.66.2.1/32", locator(b"short")), "no_usable_locator"),
        (record("10.66.2.1/32", locator(address="224.0.0.1")), "no_usable_locator"),
        (record("10.66.2.1/32", locator(address="127.0.0.1")), "no_usable_locator"),
        (record("10.66.2.1/32", locator(address="10.66.3.1")), "no_usable_locator"),
        (record("10.66.2.1/32", replace(locator(), port=0)), "no_usable_locator"),
        (record("10.66.2.1/32", replace(locator(), key=None)), "no_usable_locator"),
    ],
)
def test_bad_records_are_refused_and_counted(bad: Record, reason: str) -> None:
    reading, counters = read(bad)
    assert reading == Reading()
    assert counters.all() == {f"record.refused_{reason}": 1}


def test_a_bad_record_does_not_spoil_the_others() -> None:
    reading, _ = read(record("192.0.2.0/24"), record())
    assert [one.prefix for one in reading.peers[LOW_KEY].prefixes] == [P]


def test_the_best_locator_that_our_underlay_can_reach() -> None:
    six = locator(address="2001:db8::2", priority=1)
    four = locator(address="192.0.2.12", priority=2)
    worse = locator(address="192.0.2.13", priority=3)
    for families, expected in ((frozenset({4}), "192.0.2.12"), (frozenset({4, 6}), "2001:db8::2")):
        reading, _ = read(record("10.66.2.1/32", worse, six, four), families=families)
        assert str(reading.peers[LOW_KEY].endpoint.address) == expected


def test_withdrawal_revocation_and_negative_answers() -> None:
    negative = Record(Eid(P, 7), ttl_min=1, action=Action.SEND_MAP_REQUEST, authoritative=True)
    revoked = record("10.66.3.1/32", locator(HIGH_KEY, key_revoked=True))
    reading, _ = read(record(ttl_min=0), revoked, negative)
    assert [one.prefix for one in reading.withdrawn] == [P, net("10.66.3.1/32")]
    assert reading.revoked == {HIGH_KEY}
    assert reading.negative == [negative]
    assert not reading.peers
