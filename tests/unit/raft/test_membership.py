"""Adding and removing servers, one at a time."""

import pytest

from support.raftrig import Rig, RigWire
from support.simdisk import SimDisk
from wgmap_cluster.raft import bridging
from wgmap_cluster.raft.interface import Member, Outcome, Proposal
from wgmap_cluster.raft.membership import Change
from wgmap_cluster.raft.settings import Settings

D = Member("d", "10.0.0.4:4343")


def change(rig: Rig, name: str, *, add: bool, member: Member) -> list[Proposal]:
    result: list[Proposal] = []
    command = Change(add=add, member=member).pack()
    rig.nodes[name].proposals.add(command, rig.time + 1.5, result.append)
    return result


def names(rig: Rig, server: str) -> set[str]:
    return {member.name for member in rig.nodes[server].membership.members}


def wire(rig: Rig, server: str) -> RigWire:
    found = rig.nodes[server]._wire
    assert isinstance(found, RigWire)
    return found


def with_d(rig: Rig) -> None:
    """Start an empty server d that knows the others."""
    rig.names += "d"
    rig.boot("d", (*rig.members, D))
    for other in "abc":
        rig.connect("d", other)


def add_d(rig: Rig, asked: str = "a") -> Proposal:
    result: list[Proposal] = []
    for _ in range(20):
        result = change(rig, asked, add=True, member=D)
        rig.run(0.2)
        if result[0].outcome is Outcome.APPLIED:
            return result[0]
    raise AssertionError(result[0].reason)


def test_a_server_is_added_once_it_has_caught_up() -> None:
    rig = Rig(settings=Settings(snapshot_entries=50, retain_entries=5))
    rig.elect("a")
    for number in range(200):
        rig.propose("a", b"%d" % number)
    rig.run(0.3)
    with_d(rig)
    first = change(rig, "b", add=True, member=D)
    rig.run(0.02)
    assert first[0].outcome is Outcome.NOT_APPLIED
    assert "catching up" in first[0].reason
    add_d(rig, "b")
    rig.run(0.2)
    assert all(names(rig, server) == set("abcd") for server in "abcd")
    assert rig.machines["d"].commands == rig.machines["a"].commands


def test_a_dead_server_is_not_added_and_weakens_nothing() -> None:
    rig = Rig()
    rig.elect("a")
    for number in range(200):
        rig.propose("a", b"%d" % number)
    rig.run(0.2)
    result = change(rig, "a", add=True, member=D)
    rig.run(0.2)
    assert result[0].outcome is Outcome.NOT_APPLIED
    rig.isolate("c")
    still = rig.propose("a", b"x")
    rig.run(0.2, "ab")
    assert still[0].outcome is Outcome.APPLIED
    rig.run(6.0, "ab")
    assert rig.nodes["a"].membership.learner is None


def test_one_change_at_a_time() -> None:
    rig = Rig("abcde")
    leader = rig.elect("a")
    rig.run(0.2)
    for other in "cde":
        rig.disconnect("a", other)
    first = change(rig, "a", add=False, member=Member("e", ""))
    second = change(rig, "a", add=False, member=Member("d", ""))
    rig.tick("a")
    assert first == []  # not committed: only b is there
    assert second[0].outcome is Outcome.NOT_APPLIED
    assert "another change" in second[0].reason
    assert len(leader.voters()) == 3


def test_the_first_entry_of_a_term_comes_before_a_change() -> None:
    rig = Rig()
    rig.elect("a")
    rig.run(0.2)
    node = rig.nodes["b"]
    rig.time += 1
    node.elections._won_question = True
    node.election_now()
    rig.tick("b")
    node.elections._votes = {"c"}
    node.lead()
    result = change(rig, "b", add=False, member=Member("c", ""))
    rig.tick("b")
    assert result[0].outcome is Outcome.NOT_APPLIED


def test_a_removed_server_counts_no_more_and_stays_quiet() -> None:
    rig = Rig()
    leader = rig.elect("a")
    result = change(rig, "b", add=False, member=Member("c", ""))
    rig.run(0.2)
    assert result[0].outcome is Outcome.APPLIED
    assert leader.voters() == {"b"}
    term = leader.term
    rig.run(5.0)
    assert leader.leading
    assert leader.term == term


def test_the_leader_is_not_removed() -> None:
    rig = Rig()
    rig.elect("a")
    result = change(rig, "a", add=False, member=Member("a", ""))
    rig.run(0.1)
    assert (result[0].outcome, result[0].reason) == (
        Outcome.NOT_APPLIED, "it leads; hand over first",
    )  # fmt: skip


def test_a_change_that_is_truncated_is_taken_back() -> None:
    rig = Rig()
    rig.elect("a")
    rig.run(0.2)
    rig.isolate("a")
    change(rig, "a", add=False, member=Member("c", ""))
    rig.tick("a")
    assert names(rig, "a") == set("ab")
    rig.elect("b", "bc")
    rig.connect("a", "b")
    rig.connect("a", "c")
    rig.run(0.3)
    assert names(rig, "a") == set("abc")
    assert rig.nodes["a"].voters() == {"b", "c"}


def test_the_log_decides_who_the_servers_are_after_a_restart() -> None:
    rig = Rig(settings=Settings(snapshot_entries=20, retain_entries=2))
    rig.elect("a")
    with_d(rig)
    add_d(rig)
    rig.crash("b")
    assert names(rig, "b") == set("abcd")
    rig.run(0.3)
    for number in range(60):
        rig.propose("a", b"%d" % number)
    rig.run(0.5)
    assert rig.nodes["b"].snapshots.meta is not None
    rig.crash("b")
    assert names(rig, "b") == set("abcd")


def test_a_leader_that_was_removed_without_commit_can_take_that_back() -> None:
    rig = Rig()
    rig.elect("a")
    rig.run(0.2)
    rig.isolate("a")
    change(rig, "a", add=False, member=Member("c", ""))
    rig.tick("a")
    assert names(rig, "a") == set("ab")
    wire = rig.nodes["a"]._wire
    assert isinstance(wire, RigWire)
    assert {member.name for member in wire.members} == set("abc")
    rig.elect("c", "bc")
    rig.connect("a", "c")
    rig.run(0.3, "ac")
    assert names(rig, "a") == set("abc")


def test_a_dead_server_is_not_added_to_a_young_cluster() -> None:
    """With few entries nobody is far behind, whoever was never heard neither."""
    rig = Rig()
    rig.elect("a")
    rig.run(0.1)
    result = change(rig, "a", add=True, member=D)
    rig.run(0.2)
    assert result[0].reason == "d does not answer"
    assert names(rig, "a") == set("abc")


def test_nobody_is_removed_where_those_who_stay_could_do_nothing() -> None:
    rig = Rig()
    rig.elect("a")
    rig.run(0.2)
    rig.isolate("c")
    rig.run(0.5, "ab")
    refused = change(rig, "a", add=False, member=rig.members[1])
    rig.run(0.1, "ab")
    assert "too many of those that stay do not answer: c" in refused[0].reason
    allowed = change(rig, "a", add=False, member=rig.members[2])
    rig.run(0.2, "ab")
    assert allowed[0].outcome is Outcome.APPLIED
    assert rig.propose("a", b"x") == []
    rig.run(0.1, "ab")
    assert rig.machines["b"].commands == [b"x"]


@pytest.mark.parametrize("entries", [0, 200])
def test_a_server_that_was_away_takes_the_new_disk_of_another_one(entries: int) -> None:
    """Removed and added under its old name meanwhile: by entries, or by a snapshot."""
    rig = Rig("abcd", settings=Settings(snapshot_entries=50, retain_entries=5))
    rig.elect("a")
    stores = {name: node.others.store() for name, node in rig.nodes.items()}
    for one, node in rig.nodes.items():
        assert all(node.others.admit(other, stores[other]) for other in "abcd" if other != one)
    rig.run(0.2)
    away = rig.nodes["c"]
    rig.isolate("c")
    assert change(rig, "a", add=False, member=rig.members[1]) == []
    rig.run(0.3, "abd")
    rig.isolate("b")
    rig.disks["b"] = SimDisk()
    new = rig.boot("b").others.store()
    assert new != stores["b"]
    assert not away.others.admit("b", new)  # as far as it knows, a disk that was wiped
    for name in "ad":
        rig.connect(name, "b")
    rig.run(0.3, "ad")
    assert rig.nodes["a"].others.admit("b", new)
    for _ in range(20):
        result = change(rig, "a", add=True, member=rig.members[1])
        rig.run(0.2, "abd")
        if result[0].outcome is Outcome.APPLIED:
            break
    assert names(rig, "a") == set("abcd")
    for number in range(entries):
        rig.propose("a", b"%d" % number)
    rig.run(0.2, "abd")
    rig.connect("a", "c")
    rig.connect("d", "c")
    rig.run(0.5)
    assert names(rig, "c") == set("abcd")
    assert away.others.admit("b", new)
    assert not away.others.admit("b", stores["b"])  # the old disk is of no use any more
    assert rig.crash("c").others.admit("b", new)


def test_a_server_that_does_not_know_the_leader_learns_of_it() -> None:
    """Seed 401013: b was added while c was away, and leads; c has no connection with it."""
    rig = Rig()
    rig.elect("a")
    rig.run(0.2)
    removed = change(rig, "a", add=False, member=rig.members[1])
    rig.run(0.2)
    assert removed[0].outcome is Outcome.APPLIED
    rig.isolate("c")
    for _ in range(20):
        added = change(rig, "a", add=True, member=rig.members[1])
        rig.run(0.2, "ab")
        if added[0].outcome is Outcome.APPLIED:
            break
    rig.elect("b", "ab")
    assert rig.members[1] not in wire(rig, "c").members
    rig.connect("a", "c")
    rig.run(bridging.PATIENCE_S + 2.0)
    assert names(rig, "c") == set("abc")
    assert rig.members[1] in wire(rig, "c").members
    assert {node.leader for node in rig.nodes.values()} == {"a"}
