"""The copy of the tables, against plain models, and how it follows the replica."""

import ipaddress
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.tables import (
    META,
    SETTINGS,
    Network,
    enrolled,
    mapped,
    prefix,
    replies,
    sent,
    told,
    unmapped,
)
from wgmap.addresses import prefix_from_bytes
from wgmap_cluster.feed import (
    Attach,
    Barrier,
    FeedError,
    ResponderNote,
    Rows,
    TableBegin,
    TableEnd,
)
from wgmap_cluster.fsm.rows import Change, InstanceRow, MappingRow, Table
from wgmap_cluster.responder.actions import Action
from wgmap_cluster.responder.answers import withdrawn
from wgmap_cluster.responder.heard import Heard
from wgmap_cluster.responder.limits import Limit
from wgmap_cluster.responder.mappings import Mapping, Peer, Place
from wgmap_cluster.responder.misses import Misses
from wgmap_cluster.responder.ordered import Ordered
from wgmap_cluster.responder.refreshes import MAX_WAITING
from wgmap_cluster.responder.space import Space
from wgmap_cluster.responder.subscriptions import Subscriptions
from wgmap_cluster.responder.table import Tables
from wgmap_cluster.responder.withdrawals import Withdrawals
from wgmap_cluster.responder.written import record_bytes

numbers = st.lists(st.tuples(st.booleans(), st.integers(0, 300)), max_size=60)
# A small corner of the address space, so that prefixes often lie in one another.
prefixes = st.builds(
    lambda address, length: prefix(
        str(ipaddress.ip_network((address << (32 - length) & 0xFFFFFFFF, length), strict=False))
    ),
    st.integers(0, 31),
    st.integers(27, 32),
).map(lambda p: bytes((p[0],)) + p[1:])
owned = st.lists(st.tuples(prefixes, st.sampled_from(["x", "y", "z"])), max_size=12)


def all_of(ordered: Ordered[int]) -> list[int]:
    found: list[int] = []
    while (value := ordered.after(found[-1] if found else -1)) is not None:
        found.append(value)
    return found


@given(numbers)
def test_ordered_numbers_are_a_sorted_set(steps: list[tuple[bool, int]]) -> None:
    ordered, model = Ordered[int](), set[int]()
    for add, value in steps:
        (ordered.add if add else ordered.remove)(value)
        (model.add if add else model.discard)(value)
    assert all_of(ordered) == sorted(model)
    assert len(ordered) == len(model)
    for value in range(-1, 302, 7):
        assert ordered.after(value) == min((m for m in model if m > value), default=None)
        assert ordered.before(value) == max((m for m in model if m < value), default=None)


def test_ordered_numbers_survive_many_blocks() -> None:
    rng = random.Random(3)
    ordered, model = Ordered[int](), set[int]()
    for _ in range(20_000):
        value = rng.randrange(6000)
        add = rng.randrange(3)
        (ordered.add if add else ordered.remove)(value)
        (model.add if add else model.discard)(value)
    assert all_of(ordered) == sorted(model)


def _space(rows: list[tuple[bytes, str]]) -> Space:
    space = Space()
    peers = {name: Peer(name) for _, name in rows}
    for where, name in dict(rows).items():
        row = MappingRow(name, b"", (), 60, 1)
        space.put(where, Mapping(peers[name], record_bytes(0, where, row)))
    return space


def _prefix_of(mapping: Mapping | None) -> bytes | None:
    return None if mapping is None else mapping.place.prefix


def _covers(wide: bytes, address: bytes) -> bool:
    return ipaddress.ip_address(address) in prefix_from_bytes(wide)


@given(owned, st.integers(0, 31), st.booleans())
def test_longest_match_pieces_and_room_are_what_a_simple_model_says(
    rows: list[tuple[bytes, str]], host: int, high: bool
) -> None:
    space = _space(rows)
    owner = dict(rows)
    address = (host << 5 if high else host).to_bytes(4)
    holding = [p for p in owner if _covers(p, address)]
    best = max(holding, key=lambda p: p[0], default=None)
    assert _prefix_of(space.match(address)) == best
    if best is None:
        empty = prefix_from_bytes(space.empty_around(address, 0))
        assert not any(empty.overlaps(prefix_from_bytes(p)) for p in owner)
        if empty.prefixlen:
            wider = empty.supernet()
            assert any(wider.overlaps(prefix_from_bytes(p)) for p in owner)
        return
    foreign = {p for p in owner if owner[p] != owner[best] and p[0] > best[0]}
    part = prefix_from_bytes(space.narrowed(address, best))
    assert ipaddress.ip_address(address) in part
    assert part.prefixlen >= best[0]
    inside = [p for p in foreign if prefix_from_bytes(p).subnet_of(prefix_from_bytes(best))]  # type: ignore[arg-type]
    assert not any(part.overlaps(prefix_from_bytes(p)) for p in inside)
    if part.prefixlen > best[0]:
        assert any(part.supernet().overlaps(prefix_from_bytes(p)) for p in inside)
    pieces = space.pieces(best)
    assert pieces is not None
    left = {a for piece in pieces for a in prefix_from_bytes(piece)}
    taken = {a for p in inside for a in prefix_from_bytes(p)}
    assert left == set(prefix_from_bytes(best)) - taken
    assert len(pieces) == len(set(pieces))


@given(owned, st.lists(st.integers(0, 11), max_size=6))
def test_coverings_come_narrowest_first_and_removal_leaves_no_trace(
    rows: list[tuple[bytes, str]], removed: list[int]
) -> None:
    space = _space(rows)
    owner = dict(rows)
    for where in {rows[n][0] for n in removed if n < len(rows)}:
        space.remove(where)
        del owner[where]
    for where in owner:
        network = prefix_from_bytes(where)
        wider = [p for p in owner if p != where and network.subnet_of(prefix_from_bytes(p))]  # type: ignore[arg-type]
        around = [_prefix_of(mapping) for mapping in space.around(where)]
        assert around == sorted(wider, key=lambda p: -p[0])
        assert _prefix_of(space.at(where)) == where
    assert len(space) == len(owner)


def test_families_and_instances_do_not_mix() -> None:
    tables = Tables()
    for change in (mapped("a1", "0.0.0.0/0"), mapped("a2", "::/0", instance=3)):
        tables.apply(change)
    assert tables.match(0, bytes(16)) is None
    assert tables.match(3, bytes(4)) is None
    found = tables.match(3, bytes(16))
    assert found is not None
    assert found.peer.name == "a2"


def test_a_mapping_that_changes_its_peer_leaves_the_former_one() -> None:
    tables = Tables()
    tables.apply(mapped("a1", "10.66.1.0/24"))
    tables.apply(mapped("a2", "10.66.1.0/24"))
    assert list(tables.mappings_of("a1")) == []
    assert [mapping.peer.name for mapping in tables.mappings_of("a2")] == ["a2"]
    tables.apply(unmapped("10.66.1.0/24"))
    tables.apply(unmapped("10.66.1.0/24"))
    assert tables.registered_peers() == []


def test_an_instance_may_have_an_overlay_of_its_own() -> None:
    tables = Tables()
    for change in META:
        tables.apply(change)
    tables.apply(Change(Table.INSTANCES, 7, InstanceRow((prefix("172.16.0.0/12"),))))
    tables.apply(Change(Table.INSTANCES, 8, InstanceRow((), 5)))
    assert tables.overlay_of(7) == (prefix("172.16.0.0/12"),)
    assert tables.overlay_of(0) == tables.overlay_of(8) == tables.overlay
    tables.apply(Change(Table.INSTANCES, 7, None))
    assert tables.overlay_of(7) == tables.overlay


def test_an_address_that_was_enrolled_again_belongs_to_the_new_peer() -> None:
    tables = Tables()
    tables.apply(enrolled("a1", revoked=True))
    again = enrolled("a1")._replace(key="other")
    tables.apply(again)
    tables.apply(enrolled("a1", revoked=True))
    found = tables.peer_at("fd77:676d:6170::1")
    assert found is not None
    assert found.name == "other"


# ----------------------------------------------------------------------------- following

TWO = (
    enrolled("a1"),
    enrolled("a2"),
    mapped("a1", "10.66.1.1/32"),
    mapped("a2", "10.66.2.1/32"),
)


def version(network: Network) -> int:
    (reply,) = replies(network.ask("a1", "10.66.2.1/32"))
    return reply.records[0].version


def newer(version: int) -> Change:
    return mapped("a2", "10.66.2.1/32", version=version)


def test_the_present_tables_serve_until_the_copy_is_complete() -> None:
    network = Network(*TWO)
    network.service.feed(TableBegin(8), network.now)
    network.service.feed(Rows((*META, *TWO[:3])), network.now)
    assert version(network) == 1
    network.service.feed(Rows((newer(8),)), network.now)
    network.service.feed(TableEnd(8), network.now)
    assert version(network) == 8
    assert network.service.index == 8


def test_what_comes_while_a_copy_does_is_true_of_the_copy() -> None:
    network = Network(*TWO)
    network.lease(-1)
    network.service.feed(TableBegin(8), network.now)
    network.change(newer(9), index=9)
    network.lease(50)
    assert version(network) == 1
    assert not network.service.is_fresh(network.now)
    network.service.feed(Rows((*META, *TWO)), network.now)
    network.service.feed(TableEnd(8), network.now)
    assert (version(network), network.service.index) == (9, 9)
    assert network.service.is_fresh(network.now)


def test_changes_that_are_known_already_change_nothing() -> None:
    network = Network(*TWO)
    network.change(newer(5), index=7)
    assert network.change(newer(4), index=6) == []
    assert network.change(newer(4), index=7) == []
    assert version(network) == 5


def test_a_copy_that_ends_half_way_is_forgotten() -> None:
    network = Network(*TWO)
    network.service.feed(TableBegin(8), network.now)
    network.service.detached()
    assert told(network.service.attached(network.now))[0].message == Attach(1)
    network.change(newer(9), index=9)
    assert version(network) == 9
    with pytest.raises(FeedError):
        network.service.feed(TableEnd(8), network.now)
    with pytest.raises(FeedError):
        network.service.feed(Rows(()), network.now)


def test_an_older_copy_is_refused_and_a_lease_on_less_than_we_have_is_no_lease() -> None:
    network = Network(*TWO)
    network.change(newer(9), index=9)
    network.service.detached()
    network.service.attached(network.now)
    network.copy(5, *META, *TWO)
    assert (version(network), network.service.index) == (9, 9)
    assert network.service.counters["feed.older_copies"] == 1
    with pytest.raises(FeedError, match="less than the tables"):
        network.lease(10)  # the log vouches for less than we have: it is another log
    assert not network.service.is_fresh(network.now)
    network.service.detached()
    assert told(network.service.attached(network.now))[0].message == Attach(0)
    network.copy(5, *META, *TWO)
    assert (version(network), network.service.index) == (1, 5)
    network.lease(10)
    assert network.service.is_fresh(network.now)


def test_an_older_copy_that_is_caught_up_with_is_the_same_log() -> None:
    network = Network(*TWO)
    network.change(newer(9), index=9)
    network.service.detached()
    network.service.attached(network.now)
    network.copy(5, *META, *TWO)
    network.change(newer(9), index=9)
    network.change(newer(10), index=10)
    network.lease(10)
    assert version(network) == 10
    assert network.service.is_fresh(network.now)


def test_another_clusters_copy_is_taken_whatever_its_index() -> None:
    network = Network(*TWO)
    network.change(newer(9), index=9)
    network.copy(3, Change(Table.META, "cluster_id", b"another"), *META[1:], *TWO)
    assert (version(network), network.service.index) == (1, 3)


# ----------------------------------------------------------------------------- refreshes


def barrier(actions: list[Action]) -> int:
    (tell,) = told(actions)
    assert isinstance(tell.message, Barrier)
    return tell.message.number


def test_a_refresh_waits_for_its_barrier_and_sees_what_came_before_it() -> None:
    network = Network(*TWO)
    network.lease(-1)
    actions = network.ask("a1", "10.66.2.1/32", refresh=True)
    assert sent(actions) == []
    number = barrier(actions)
    network.change(newer(2))
    done = network.barrier(number)
    (reply,) = replies(done)
    assert (reply.records[0].version, reply.records[0].authoritative) == (2, True)
    assert network.barrier(number) == []


def test_a_refresh_is_not_answered_without_its_barrier() -> None:
    network = Network(*TWO)
    number = barrier(network.ask("a1", "10.66.2.1/32", refresh=True))
    assert sent(network.barrier(number, ok=False)) == []
    assert network.service.counters["refresh.refused"] == 1
    number = barrier(network.ask("a1", "10.66.2.1/32", refresh=True))
    assert replies(network.tick(5)) == []
    assert sent(network.barrier(number)) == []
    assert network.service.counters["refresh.late"] == 1
    number = barrier(network.ask("a1", "10.66.2.1/32", refresh=True))
    network.service.detached()
    assert sent(network.barrier(number)) == []
    assert network.service.counters["refresh.lost"] == 1
    assert network.ask("a1", "10.66.2.1/32", refresh=True) == []
    assert network.service.counters["refused.refresh_no_replica"] == 1


def test_a_refresh_whose_turn_comes_too_late_is_not_answered() -> None:
    """Its answer would say with authority what stood longer ago than the staleness bound."""
    network = Network(*TWO)
    assert SETTINGS.patience_s == 1.0
    for later, answers in ((0.9, 1), (1.0, 0)):
        number = barrier(network.ask("a1", "10.66.2.1/32", refresh=True))
        assert len(replies(network.barrier(number, later=later))) == answers
    assert network.service.counters["refresh.late"] == 1


def test_refreshes_share_a_barrier_that_was_asked_for_after_they_came() -> None:
    network = Network(*TWO)
    first = [barrier(network.ask("a1", "10.66.2.1/32", refresh=True)) for _ in range(4)]
    for _ in range(3):
        assert network.ask("a1", "10.66.2.1/32", refresh=True) == []
    done = network.barrier(first[0])
    assert len(replies(done)) == 1
    shared = barrier([tell for tell in done if tell in told(done)])
    assert shared not in first
    assert len(replies(network.barrier(shared))) == 3


def test_waiting_refreshes_are_bounded() -> None:
    network = Network(*TWO)
    for n in range(MAX_WAITING + 10):
        network.now += 0.0005  # within the limit of requests
        network.ask("a1" if n % 2 else "a2", "10.66.2.1/32", refresh=True)
    assert network.service.counters["refused.refresh_too_many"] == 10


def test_a_requester_that_is_revoked_while_it_waits_gets_nothing() -> None:
    network = Network(*TWO)
    number = barrier(network.ask("a1", "10.66.2.1/32", refresh=True))
    network.change(enrolled("a1", revoked=True))
    assert sent(network.barrier(number)) == []


# ----------------------------------------------------------------------------- bounds


def test_subscriptions_drop_the_oldest_and_count_it() -> None:
    subscriptions = Subscriptions(most_each=3, most=5)
    for n in range(4):
        subscriptions.add("x", f"a{n}", 0.0, 10.0)
    assert subscriptions.of("x", 1.0) == ["a1", "a2", "a3"]
    for n in range(3):
        subscriptions.add("y", f"a{n}", 1.0, 20.0)
    assert (len(subscriptions), subscriptions.dropped) == (5, 2)
    assert subscriptions.of("x", 1.0) == ["a2", "a3"]
    subscriptions.add("x", "a2", 2.0, 30.0)  # renewed: it is the youngest now
    subscriptions.sweep(15.0, 10)
    assert subscriptions.of("x", 15.0) == ["a2"]
    assert subscriptions.of("y", 25.0) == []
    assert subscriptions.subjects() == ["x"]


def test_a_limit_lets_the_burst_through_and_then_the_rate() -> None:
    limit = Limit(rate=10.0, burst=5, most=3)
    assert sum(limit.allows("a", 0.0) for _ in range(9)) == 5
    assert sum(limit.allows("a", 0.35) for _ in range(9)) == 3
    assert limit.allows("b", 0.0)
    assert limit.allows("c", 0.0)
    crowd = [limit.allows(f"n{n}", 0.0) for n in range(20)]  # all busy: they share one bucket
    assert sum(crowd) == 5
    assert limit.allows("n1", 100.0)


def test_the_replica_is_told_counters_and_sizes_every_second() -> None:
    network = Network(*TWO)
    network.ask("a1", "10.66.2.1/32")
    notes = [t.message for t in told(network.tick(3.0)) if isinstance(t.message, ResponderNote)]
    assert 3 <= len(notes) <= 4
    counters = notes[-1].counters
    assert counters["answer.fresh"] == 1
    assert counters["table.mappings"] == 2
    assert counters["reachable_agents"] == 1
    assert counters["push.repeated"] > 1


def test_who_asks_for_all_the_world_displaces_only_what_it_asked_itself() -> None:
    misses = Misses(most=100, most_own=10)
    honest = Place(0, prefix("10.66.1.1/32"))
    misses.add(0, honest.prefix[1:], "a2", 0.0)
    for n in range(1000):
        misses.add(0, n.to_bytes(4), "a1", 0.0)
    assert misses.take(honest, 1.0) == ["a2"]
    assert misses.take(Place(0, prefix("0.0.0.0/0")), 1.0) == ["a1"]
    assert misses.take(Place(0, prefix("0.0.0.0/0")), 1.0) == []
    misses.add(0, honest.prefix[1:], "a1", 0.0)
    misses.add(0, honest.prefix[1:], "a1", 50.0)
    assert misses.take(honest, 100.0) == ["a1"], "the later question counts"


def test_misses_are_bounded_and_taken_once() -> None:
    misses = Misses(most=2, most_each=2)
    for agent in ("a1", "a2", "a3"):
        misses.add(0, b"\x0a\x42\x01\x01", agent, 0.0)
    host = Place(0, prefix("10.66.1.1/32"))
    assert misses.take(Place(1, host.prefix), 1.0) == []
    assert misses.take(host, 1.0) == ["a2", "a3"]
    assert misses.take(host, 1.0) == []
    for last in (1, 2, 3):
        misses.add(0, bytes((10, 66, 1, last)), "a1", 0.0)
    misses.add(0, bytes((10, 66, 1, 3)), "a2", 50.0)
    assert misses.take(Place(0, prefix("10.66.1.0/31")), 1.0) == []  # .1 made room
    assert misses.take(Place(0, prefix("10.66.1.0/24")), 61.0) == ["a2"]


def test_withdrawals_are_bounded_and_end_with_their_time_or_a_new_mapping() -> None:
    kept = Withdrawals()
    places = [Place(0, prefix(f"10.66.1.{n}/32")) for n in range(100)]
    row = mapped("a1", "10.66.1.0/24").row
    assert isinstance(row, MappingRow)
    records = [withdrawn(record_bytes(place.instance, place.prefix, row)) for place in places]
    for place, record in zip(places, records, strict=True):
        kept.add("a1", place, record, 0.0)
    assert len(kept.of("a1", 1.0)) == 64
    kept.over(places[0])
    assert len(kept.of("a1", 1.0)) == 63
    assert kept.of("a2", 1.0) == []
    assert kept.of("a1", 121.0) == []
    for n in range(5000):
        kept.add(f"b{n}", places[0], records[0], 130.0)
    assert kept.of("b0", 131.0) == []
    assert len(kept.of("b4999", 131.0)) == 1


def test_agents_count_as_heard_for_half_a_minute_to_a_minute() -> None:
    heard = Heard()
    heard.add("a1", 100.0)
    heard.add("a2", 129.0)
    heard.add("a1", 129.0)
    assert heard.count(129.0) == 2
    heard.add("a1", 131.0)
    assert heard.count(159.0) == 2
    assert heard.count(161.0) == 1
    assert heard.count(500.0) == 0
