"""What operators can do, over the real state machine and a log that obeys."""

import asyncio
import ipaddress
from dataclasses import replace
from pathlib import Path

import pytest

from support import fsm
from support.memory_log import ClusterLog
from support.operators import STALENESS_S, Cluster, found, until
from wgmap import __version__
from wgmap.errors import ConfigError, ConflictError, NotFoundError, UnavailableError, WgmapError
from wgmap.wg.keys import PublicKey
from wgmap_cluster.fsm.machine import Machine
from wgmap_cluster.raft.interface import Role
from wgmap_cluster.replica.notes import ServerNote
from wgmap_cluster.replica.operations import Operations
from wgmap_cluster.replica.requests import Enrolment

WALL = "2026-11-22T18:00:00+00:00"
A1 = Enrolment(
    "a1",
    (ipaddress.ip_network("10.66.1.1/32"), ipaddress.ip_network("fd66::1/128")),
    PublicKey(fsm.key(1)),
)


@pytest.fixture
async def cluster(tmp_path: Path) -> Cluster:
    return await found(tmp_path / "unused.sock")


async def add(cluster: Cluster, enrolment: Enrolment = A1) -> bool:
    return (await cluster.operations.add_peer(enrolment, "root", WALL))["changed"]


async def test_same_enrolment_again_changes_nothing(cluster: Cluster) -> None:
    assert await add(cluster)
    before = dict(cluster.machine.state.audit)

    assert not await add(cluster)
    assert cluster.machine.state.audit == before


async def test_operator_and_server_are_audited(cluster: Cluster) -> None:
    await add(cluster)

    row = list(cluster.machine.state.audit.values())[-1]
    assert (row.server, row.operator, row.wall, row.action) == ("ms1", "root", WALL, "enrol")


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"name": "a2"}, ConflictError),  # the key is a1's
        ({"instance": 7}, ConflictError),  # the name is taken by other values
        ({"name": "a2", "control_key": PublicKey(fsm.key(2))}, ConflictError),  # the prefixes
        ({"name": "x" * 64, "control_key": PublicKey(fsm.key(2))}, ConfigError),
        ({"name": "a b", "control_key": PublicKey(fsm.key(2))}, ConfigError),
        ({"name": "a2", "control_key": None}, ConfigError),
    ],
    ids=["key", "other values", "prefix", "long name", "bad name", "no identity"],
)
async def test_enrolment_that_does_not_fit(
    cluster: Cluster, change: dict[str, object], error: type[WgmapError]
) -> None:
    await add(cluster)

    with pytest.raises(error):
        await add(cluster, replace(A1, **change))  # type: ignore[arg-type]
    assert list(cluster.machine.state.peers) == ["a1"]


@pytest.mark.parametrize(
    "prefix",
    [
        "fd77:676d:6170::/96",  # inside the control prefix
        "fd77::/16",  # around it
        "fd77:6d65::/120",  # the mesh
        "224.0.0.0/8",
        "ff02::/16",
        "127.0.0.1/32",
        "::/0",
    ],
)
async def test_prefix_that_nobody_may_have(cluster: Cluster, prefix: str) -> None:
    with pytest.raises(ConfigError, match=r"prefix"):
        await add(cluster, replace(A1, prefixes=(ipaddress.ip_network(prefix),)))
    assert not cluster.machine.state.peers


async def test_more_specific_prefix_inside_another_peers_is_allowed(cluster: Cluster) -> None:
    await add(cluster, replace(A1, prefixes=(ipaddress.ip_network("10.66.0.0/24"),)))
    inside = (ipaddress.ip_network("10.66.0.7/32"),)

    assert await add(
        cluster, replace(A1, name="a2", control_key=PublicKey(fsm.key(2)), prefixes=inside)
    )


async def test_same_prefix_in_another_instance_is_allowed(cluster: Cluster) -> None:
    await add(cluster)

    assert await add(cluster, replace(A1, name="a2", control_key=PublicKey(fsm.key(2)), instance=2))


async def test_too_large_a_request_is_refused(cluster: Cluster) -> None:
    many = tuple(ipaddress.ip_network((10 << 24 | n, 32)) for n in range(65))

    with pytest.raises(ConfigError, match="64"):
        await add(cluster, replace(A1, prefixes=many))
    with pytest.raises(ConfigError, match="too many"):
        await add(cluster, replace(A1, endpoint_allow=100 * many))


@pytest.mark.parametrize("fault", ["no quorum", "no answer"])
async def test_without_a_quorum_nothing_is_promised(cluster: Cluster, fault: str) -> None:
    cluster.log.quorum = fault != "no quorum"
    cluster.log.loses_answers = fault == "no answer"

    with pytest.raises(UnavailableError, match="try again"):
        await add(cluster)
    with pytest.raises(UnavailableError, match="try again"):
        await cluster.operations.revoke_peer("a1", "root", WALL)


async def test_repeating_after_an_unknown_end_succeeds(cluster: Cluster) -> None:
    cluster.log.loses_answers = True
    with pytest.raises(UnavailableError):
        await add(cluster)

    cluster.log.loses_answers = False
    assert not await add(cluster)


async def test_peers_are_shown_with_what_they_registered(cluster: Cluster) -> None:
    await add(cluster)
    (enrolled,) = cluster.operations.peers()
    assert (enrolled["registered"], enrolled["last_seen_s"]) == (False, None)

    await cluster.apply(fsm.register(1, 1, "10.66.1.1/32"))
    (registered,) = cluster.operations.peers()
    assert (registered["registered"], registered["last_seen_s"]) == (True, 0.0)
    (mapping,) = cluster.operations.peer("a1")["mappings"]
    assert mapping["prefix"] == "10.66.1.1/32"

    await cluster.operations.revoke_peer("a1", "root", WALL)
    (revoked,) = cluster.operations.peers()
    assert (revoked["registered"], revoked["revoked"]) == (False, True)


async def test_unknown_peers(cluster: Cluster) -> None:
    with pytest.raises(NotFoundError, match="a9"):
        cluster.operations.peer("a9")
    with pytest.raises(NotFoundError, match="a9"):
        await cluster.operations.revoke_peer("a9", "root", WALL)


async def test_revocation_is_confirmed_by_all(cluster: Cluster) -> None:
    await add(cluster)
    async with asyncio.timeout(STALENESS_S):
        revoked = await cluster.operations.revoke_peer("a1", "root", WALL)

    assert (revoked["confirmed"], revoked["unconfirmed"]) == (["ms1", "ms2", "ms3"], [])
    assert 0 <= revoked["took_s"] < STALENESS_S


async def test_revocation_waits_for_a_slow_server(cluster: Cluster) -> None:
    await add(cluster)
    cluster.log.followers.discard("ms3")
    revoking = asyncio.create_task(cluster.operations.revoke_peer("a1", "root", WALL))
    await until(lambda: bool(cluster.machine.state.revocations))
    assert not revoking.done()

    cluster.log.hear("ms3", cluster.log.index)
    assert (await revoking)["unconfirmed"] == []


async def test_revocation_names_who_did_not_confirm(cluster: Cluster) -> None:
    await add(cluster)
    cluster.log.lose("ms2")
    loop = asyncio.get_running_loop()
    start = loop.time()
    revoked = await cluster.operations.revoke_peer("a1", "root", WALL)

    assert revoked["unconfirmed"] == ["ms2"]
    assert revoked["confirmed"] == ["ms1", "ms3"]
    assert loop.time() - start >= 2 * STALENESS_S
    again = await cluster.operations.revoke_peer("a1", "root", WALL)
    assert again["unconfirmed"] == ["ms2"]


async def test_a_responder_that_has_not_applied_it_has_not_confirmed(cluster: Cluster) -> None:
    await add(cluster)
    cluster.log.followers.discard("ms3")
    cluster.log.hear("ms3", 99, served=1)
    revoked = await cluster.operations.revoke_peer("a1", "root", WALL)
    assert revoked["unconfirmed"] == ["ms3"]

    cluster.log.hear("ms3", 99)
    cluster.answers = False  # none is attached here: one that lives may still have a lease
    revoked = await cluster.operations.revoke_peer("a1", "root", WALL)
    assert revoked["unconfirmed"] == ["ms1"]


async def test_server_never_heard_of_has_not_confirmed(cluster: Cluster) -> None:
    await add(cluster)
    del cluster.log.others["ms3"]
    cluster.log.followers.discard("ms3")

    revoked = await cluster.operations.revoke_peer("a1", "root", WALL)
    assert revoked["unconfirmed"] == ["ms3"]


async def test_status_of_all_servers(cluster: Cluster) -> None:
    await add(cluster)
    cluster.log.hear("ms2", 1, fresh=False, agents=2)
    cluster.log.lose("ms3")

    status = cluster.operations.status()
    assert (status["leader"], status["term"], status["cluster_id"]) == ("ms1", 3, (b"c" * 16).hex())
    assert (status["peers"], status["mappings"]) == (1, 0)
    assert [tuple(server.values()) for server in status["servers"]] == [
        ("ms1", "leader", 2, True, 4, __version__),
        ("ms2", "follower", 1, False, 2, __version__),
        ("ms3", "unreachable", None, None, None, None),
    ]


async def test_status_without_a_leader(cluster: Cluster) -> None:
    cluster.log.role, cluster.log.leader = Role.CANDIDATE, None
    cluster.fresh, cluster.agents = False, None

    status = cluster.operations.status()
    assert status["leader"] is None
    own = status["servers"][0]
    assert tuple(own.values()) == ("ms1", "candidate", 1, False, None, __version__)
    assert status["servers"][1]["state"] == "follower"

    note = ServerNote.of(cluster.log.status(), fresh=False, reachable_agents=None)
    cluster.log.others["ms2"] = replace(cluster.log.others["ms2"], note=note.encode())
    assert cluster.operations.status()["servers"][1]["state"] == "candidate"


def test_status_before_the_bootstrap(tmp_path: Path) -> None:
    machine = Machine()
    log = ClusterLog(machine)
    operations = Operations("ms1", machine, log, lambda: ServerNote(0, False, None), STALENESS_S)

    status = operations.status()
    assert status["cluster_id"] is None
    assert [server["name"] for server in status["servers"]] == ["ms1"]


async def test_enrolment_before_the_bootstrap(tmp_path: Path) -> None:
    machine = Machine()
    log = ClusterLog(machine)
    operations = Operations("ms1", machine, log, lambda: ServerNote(0, False, None), STALENESS_S)

    with pytest.raises(UnavailableError, match="not bootstrapped"):
        await operations.add_peer(A1, "root", WALL)


async def test_longest_prefix_of_the_instance_is_found(cluster: Cluster) -> None:
    await add(cluster, replace(A1, prefixes=(ipaddress.ip_network("10.66.0.0/16"),)))
    await cluster.apply(fsm.register(1, 1, "10.66.0.0/16", "10.66.5.0/24"))
    resolve = cluster.operations.resolve

    inner = await resolve(0, ipaddress.ip_address("10.66.5.9"))
    assert (inner["found"], inner["prefix"], inner["peer"]) == (True, "10.66.5.0/24", "a1")
    assert (await resolve(0, ipaddress.ip_address("10.66.6.9")))["prefix"] == "10.66.0.0/16"
    assert (await resolve(0, ipaddress.ip_network("10.66.5.0/24")))["prefix"] == "10.66.5.0/24"
    assert (await resolve(0, ipaddress.ip_network("10.66.4.0/23")))["prefix"] == "10.66.0.0/16"
    for instance, eid in ((1, "10.66.5.9"), (0, "10.67.0.1"), (0, "fd66::1")):
        missing = await resolve(instance, ipaddress.ip_address(eid))
        assert (missing["found"], missing["key"], missing["locators"]) == (False, None, [])


async def test_resolving_without_a_quorum_is_not_fresh(cluster: Cluster) -> None:
    address = ipaddress.ip_address("10.66.1.1")
    assert (await cluster.operations.resolve(0, address))["fresh"]

    cluster.log.quorum = False
    assert not (await cluster.operations.resolve(0, address))["fresh"]


def test_notes_round_trip_and_ignore_what_they_do_not_know() -> None:
    for note in (
        ServerNote(0, False, None),
        ServerNote(1 << 60, True, 100_000, candidate=True, served=1 << 59, release="1.2.3"),
    ):
        assert ServerNote.decode(note.encode()) == note
        assert len(note.encode()) < 64
    for data in (
        b"",
        b"\xc1",
        b"\x93\x01\x02",
        b"\x94\x02\x01\xc3\xc0",
        b"\x90",
        b"\x01",
        b"\xff" * 9,
    ):
        assert ServerNote.decode(data) is None
