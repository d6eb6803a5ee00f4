"""The small decisions of the replica: ring, expiry, clock, batches of seen peers."""

import heapq

from support.fsm import Driver, bootstrap, enrol, register
from wgmap_cluster.fsm.commands import Advance, Expire, Revoke, encode
from wgmap_cluster.fsm.results import Applied, Done
from wgmap_cluster.fsm.rows import Change, Meta, Table
from wgmap_cluster.replica.expiry import DueQueue, LeaderClock
from wgmap_cluster.replica.ring import Ring
from wgmap_cluster.replica.seen import SeenBatch


def meta(value: int) -> Applied:
    return Applied(Done(), (Change(Table.META, "clock", value),))


def test_the_ring_gives_what_was_missed_or_says_that_it_cannot() -> None:
    ring = Ring(10, most=3)
    assert ring.since(9) is None
    assert ring.since(10) == []
    for index in (11, 12, 13):
        ring.add(index, meta(index))
    missed = ring.since(11)
    assert missed is not None
    assert [index for index, _ in missed] == [12, 13]
    ring.add(14, meta(14))
    assert ring.since(10) is None
    assert [index for index, _ in ring.since(11) or []] == [12, 13, 14]


def test_the_ring_carries_only_what_the_feed_does() -> None:
    ring = Ring(0)
    applied = Applied(Done(), (Change(Table.AUDIT, 1, None), Change(Table.META, "x", 1)))
    assert ring.add(1, applied) == (Change(Table.META, "x", 1),)
    assert ring.add(2, Applied(Done(), (Change(Table.VERSIONS, (0, b""), 1),))) == ()
    assert ring.since(0) == [(1, (Change(Table.META, "x", 1),))]


def founded(ttl: int = 1) -> tuple[Driver, DueQueue]:
    driver = Driver(founded=False)
    queue = DueQueue()
    driver.machine.listen(queue.applied)
    driver.done(bootstrap())
    driver.done(enrol("a1", 1, "10.66.1.0/24"))
    driver.registered(register(1, 1, "10.66.1.0/24", ttl=ttl))
    return driver, queue


def test_a_registration_is_due_when_its_grace_is_over() -> None:
    driver, queue = founded()
    state = driver.machine.state
    assert queue.due(state, 179.9, 0.0) == []
    assert queue.due(state, 180.0, 0.0) == ["a1"]
    assert queue.due(state, 180.0, 0.0) == [], "not again at once"
    assert queue.due(state, 190.0, 0.0) == ["a1"], "but again until it is applied"
    driver.done(Expire(190.0, ("a1",)))
    assert queue.due(state, 1000.0, 0.0) == []
    driver.registered(register(1, 2, "10.66.1.0/24", ttl=1))
    assert queue.due(state, 370.0, 0.0) == ["a1"]


def test_a_new_leader_starts_the_grace_anew() -> None:
    driver, queue = founded()
    assert queue.due(driver.machine.state, 200.0, 100.0) == []
    assert queue.due(driver.machine.state, 280.0, 100.0) == ["a1"]


def test_a_shorter_ttl_comes_forward_and_leaves_no_entries_behind() -> None:
    driver, queue = founded(ttl=60)
    for nonce in range(2, 30):
        driver.registered(register(1, nonce, "10.66.1.0/24", ttl=60 if nonce % 2 else 1))
    driver.registered(register(1, 31, "10.66.1.0/24", ttl=1))
    state = driver.machine.state
    assert queue.due(state, 180.0, 0.0) == ["a1"]
    driver.done(Revoke("a1", bootstrap().origin))
    assert queue.due(state, 1e9, 0.0) == []
    assert heapq.nsmallest(1, queue._heap) == []


def test_the_clock_goes_on_where_the_last_leader_left_it() -> None:
    driver, queue = founded()
    driver.done(Advance(50.0))
    clock = LeaderClock()
    state = driver.machine.state
    assert clock.tick(1000.0, None, state, queue) is None
    assert clock.tick(1000.0, 3, state, queue) == Advance(50.0)
    assert clock.tick(1005.0, 3, state, queue) == Advance(55.0)
    assert clock.tick(1100.0, None, state, queue) is None
    assert clock.tick(2000.0, 4, state, queue) == Advance(50.0), "its own time was not counted"
    for passed in range(5, 180, 5):
        assert clock.tick(2000.0 + passed, 4, state, queue) == Advance(50.0 + passed)
    command = clock.tick(2190.0, 4, state, queue)
    assert command == Expire(240.0, ("a1",)), "grace anew: 180 s after it became leader"
    assert isinstance(command, Expire)
    driver.apply_bytes(encode(command))
    assert not state.mappings
    assert state.meta[Meta.CLOCK] == 240.0


def ticked(clock: LeaderClock, driver: Driver, queue: DueQueue, start: float, for_s: int) -> None:
    """Let a leader of term 3 tick every 5 s, and apply what it proposes; nobody may expire."""
    for passed in range(0, for_s, 5):
        command = clock.tick(start + passed, 3, driver.machine.state, queue)
        assert isinstance(command, Advance), f"{command} {passed} s after {start}"
        driver.apply_bytes(encode(command))


def test_a_leader_that_was_stopped_for_longer_than_the_grace_expires_nobody() -> None:
    driver, queue = founded()
    clock = LeaderClock()
    ticked(clock, driver, queue, 1000.0, 100)
    # An hour later it goes on where it was, in the same term: nobody has led meanwhile.
    ticked(clock, driver, queue, 4600.0, 175)
    assert driver.machine.state.clock < 300.0, "what it slept does not count"
    assert driver.machine.state.mappings
    assert clock.tick(4600.0 + 180, 3, driver.machine.state, queue) == Expire(
        driver.machine.state.clock + 10.0, ("a1",)
    ), "who does not come back has left"


def test_a_tick_that_is_a_little_late_counts_as_time() -> None:
    driver, queue = founded()
    clock = LeaderClock()
    ticked(clock, driver, queue, 1000.0, 20)
    assert clock.tick(1030.0, 3, driver.machine.state, queue) == Advance(30.0)


def test_no_clock_before_the_cluster_is_founded() -> None:
    driver = Driver(founded=False)
    assert LeaderClock().tick(1.0, 1, driver.machine.state, DueQueue()) is None


def test_seen_peers_travel_once_in_commands_that_fit() -> None:
    batch = SeenBatch()
    names = [f"{n:063d}" for n in range(3000)]
    for name in names + names:
        batch.add(name)
    assert len(batch) == 3000
    commands = list(batch.drain())
    assert [name for command in commands for name in command.peers] == names
    assert all(encode(command) for command in commands)
    assert len(batch) == 0
    batch.put_back(commands[0].peers)
    assert len(batch) == len(commands[0].peers)
