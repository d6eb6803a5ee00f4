"""Daily work with the program: changing, importing, looking back, following, backing up."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from support import fsm
from support.operators import WGMAP, Cluster, Ended, serving, wgmap
from wgmap.wg.keys import PrivateKey, PublicKey
from wgmap_cluster.fsm.rows import Meta

KEY = str(PublicKey(fsm.key(1)))


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with serving(tmp_path / "admin.sock") as cluster:
        await cluster.apply(fsm.enrol("a1", 1, "10.66.1.0/24", "fd66::1/128"))
        await cluster.apply(fsm.register(1, 1, "10.66.1.1/32", "fd66::1/128"))
        yield cluster


async def good(cluster: Cluster, *arguments: str) -> Any:
    ended = await wgmap(cluster, *arguments, "--json")
    assert ended.code == 0, ended.err
    return json.loads(ended.out)


def check_refused(ended: Ended, code: int, said: str) -> None:
    assert (ended.code, ended.out) == (code, ""), ended
    assert said in ended.err
    assert "Traceback" not in ended.err


# ------------------------------------------------------------------------------------ peer set


async def test_set_changes_what_is_given_and_nothing_else(cluster: Cluster) -> None:
    view = await good(
        *(cluster, "peer", "set", "a1", "--prefix", "fd66::1/128", "--name", "b1"),
        *("--limit", "4", "--endpoint-allow", "192.0.2.0/24"),
    )
    assert (view["name"], view["prefixes"], view["limit"]) == ("b1", ["fd66::1/128"], 4)
    assert (view["revision"], view["changed"]) == (2, True)
    assert [each["prefix"] for each in view["mappings"]] == ["fd66::1/128"]
    again = await good(cluster, "peer", "set", "b1", "--no-endpoint-allow", "--if-revision", "2")
    assert (again["endpoint_allow"], again["control_key"]) == ([], KEY)
    ended = await wgmap(cluster, "peer", "set", "b1", "--limit", "9", "--if-revision", "2")
    check_refused(ended, 1, "revision 3")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("a1",), 2, "nothing to change"),
        (("a1", "--if-revision", "1"), 2, "nothing to change"),
        (("a1", "--limit", "65"), 2, "0 to 64"),
        (("a1", "--prefix", "224.0.0.0/8"), 2, "not unicast"),
        (("a1", "--control-key", "x"), 2, "a key"),
        (("a1", "--limit", "1"), 1, "limit is 1"),
        (("a9", "--limit", "1"), 1, "a9"),
    ],
)
async def test_a_bad_change(
    cluster: Cluster, arguments: tuple[str, ...], code: int, said: str
) -> None:
    check_refused(await wgmap(cluster, "peer", "set", *arguments), code, said)
    assert cluster.machine.state.peers["a1"].revision == 1


# --------------------------------------------------------------------------------- peer import


def lines(count: int, first: int = 0) -> list[dict[str, object]]:
    return [
        {
            "name": f"p{number:05}",
            "control_key": str(PublicKey(number.to_bytes(4) + 28 * b"k")),
            "prefixes": [f"10.{64 + (number >> 16)}.{number >> 8 & 255}.{number & 255}/32"],
            "instance": 5,
        }
        for number in range(first, first + count)
    ]


def write(path: Path, peers: list[dict[str, object]]) -> str:
    path.write_text("# from the inventory\n\n" + "".join(json.dumps(p) + "\n" for p in peers))
    return str(path)


async def test_ten_thousand_peers_in_one_run_and_again(cluster: Cluster, tmp_path: Path) -> None:
    file = write(tmp_path / "peers.jsonl", lines(10_000))
    before = cluster.log.index
    assert await good(cluster, "peer", "import", file) == {"enrolled": 10_000, "unchanged": 0}
    assert cluster.log.index - before == 50, "commands"
    assert len(cluster.machine.state.peers) == 10_001
    assert await good(cluster, "peer", "import", file) == {"enrolled": 0, "unchanged": 10_000}


BAD_LINES: dict[str, tuple[object, int, str]] = {
    "no JSON": ("{", 2, "line 5"),
    "an array": ([], 2, "line 5"),
    "unknown field": ({**lines(1, 900)[0], "prefix": []}, 2, "line 5: prefix: unknown key"),
    "name twice": (lines(1)[0], 2, "line 5: name: p00000 is in line 3 already"),
    "key twice": ({**lines(1)[0], "name": "other"}, 1, "line 5: the control key is taken"),
    "reserved": ({**lines(1, 900)[0], "prefixes": ["::/0"]}, 2, "line 5: the prefix cannot"),
}


@pytest.mark.parametrize(("bad", "code", "said"), BAD_LINES.values(), ids=BAD_LINES)
async def test_a_bad_line_is_named_and_its_batch_stays_out(
    cluster: Cluster, tmp_path: Path, bad: object, code: int, said: str
) -> None:
    path = tmp_path / "peers.jsonl"
    write(path, lines(2))
    with path.open("a") as file:
        file.write((bad if isinstance(bad, str) else json.dumps(bad)) + "\n")
        file.write(json.dumps(lines(1, 7)[0]) + "\n")
    check_refused(await wgmap(cluster, "peer", "import", str(path)), code, said)
    assert list(cluster.machine.state.peers) == ["a1"]


async def test_batches_before_the_bad_one_are_in(cluster: Cluster, tmp_path: Path) -> None:
    peers = lines(450)
    peers[420]["prefixes"] = peers[0]["prefixes"]
    file = write(tmp_path / "peers.jsonl", peers)
    ended = await wgmap(cluster, "peer", "import", file)
    check_refused(ended, 1, "line 423: the prefix is another peer's")
    assert "400 peers of earlier lines are in" in ended.err
    assert len(cluster.machine.state.peers) == 401


async def test_the_largest_peers_fit_their_batches(cluster: Cluster, tmp_path: Path) -> None:
    peers: list[dict[str, object]] = []
    for peer in lines(60):
        number = len(peers)
        prefixes = [f"2001:db8:{number:x}:{n:x}::/64" for n in range(64)]
        allow = [f"{n + 1}.0.0.0/8" for n in range(64)]
        peers.append({**peer, "prefixes": prefixes, "endpoint_allow": allow})
    file = write(tmp_path / "peers.jsonl", peers)
    assert (await good(cluster, "peer", "import", file))["enrolled"] == 60


async def test_a_file_that_is_not_there(cluster: Cluster, tmp_path: Path) -> None:
    ended = await wgmap(cluster, "peer", "import", str(tmp_path / "none"))
    check_refused(ended, 2, "none: No such file")


# ------------------------------------------------------------------------ audit and instances


async def test_audit_shows_the_last_and_what_came_since(cluster: Cluster) -> None:
    await wgmap(cluster, "peer", "set", "a1", "--limit", "5")
    await wgmap(cluster, "peer", "revoke", "a1")
    rows = await good(cluster, "audit")
    assert [(row["number"], row["action"], row["subject"]) for row in rows[1:]] == [
        (2, "enrol", "a1"),
        (3, "set", "a1"),
        (4, "revoke", "a1"),
    ]
    assert rows[2]["server"] == "ms1"
    assert rows[2]["detail"] == "limit 5"
    assert [row["number"] for row in await good(cluster, "audit", "--limit", "1")] == [4]
    assert [row["number"] for row in await good(cluster, "audit", "--since", "3")] == [4]
    since = await good(cluster, "audit", "--since", "1", "--limit", "2")
    assert [row["number"] for row in since] == [2, 3]
    assert await good(cluster, "audit", "--since", "99") == []
    assert "limit 5" in (await wgmap(cluster, "audit")).out


async def test_revoking_one_revision_only(cluster: Cluster) -> None:
    await wgmap(cluster, "peer", "set", "a1", "--limit", "5")
    ended = await wgmap(cluster, "peer", "revoke", "a1", "--if-revision", "1")
    check_refused(ended, 1, "a1 is at revision 2")
    assert (await good(cluster, "peer", "show", "a1"))["revoked"] is False
    revoked = await good(cluster, "peer", "revoke", "a1", "--if-revision", "2")
    assert revoked["confirmed"] == ["ms1", "ms2", "ms3"]


async def test_status_and_list_show_what_is_revoked(cluster: Cluster) -> None:
    await wgmap(cluster, "peer", "revoke", "a1")
    status = await good(cluster, "status")
    assert (status["peers"], status["revoked"], status["revocation"]) == (0, 1, 1)
    assert (await good(cluster, "peer", "show", "a1"))["revocation"] == 1
    assert "revoked" in (await wgmap(cluster, "peer", "list")).out


async def test_instances_with_overlays_of_their_own(cluster: Cluster) -> None:
    view = await good(cluster, "instance", "set", "7", "--overlay", "172.16.0.0/12", "fd07::/16")
    assert (view["overlay"], view["own_overlay"]) == (["172.16.0.0/12", "fd07::/16"], True)
    await good(cluster, "instance", "set", "0", "--max-mappings", "9")
    listed = await good(cluster, "instance", "list")
    assert [(each["instance"], each["mappings"], each["max_mappings"]) for each in listed] == [
        (0, 2, 9),
        (7, 0, 1_000_000),
    ]
    key = str(PublicKey(fsm.key(2)))
    added = await wgmap(
        *(cluster, "peer", "add", "b1", "--prefix", "172.16.1.1/32", "--instance", "7"),
        *("--control-key", key),
    )
    assert 'overlay = ["172.16.0.0/12", "fd07::/16"]' in added.out
    old = await wgmap(cluster, "instance", "set", "7", "--no-overlay", "--if-tag", "1")
    check_refused(old, 1, "instance 7 is at tag")
    tag = str((await good(cluster, "instance", "list"))[1]["tag"])
    await good(cluster, "instance", "set", "7", "--no-overlay", "--if-tag", tag)
    assert (await good(cluster, "instance", "list"))[1]["overlay"] == ["10.66.0.0/16", "fd66::/64"]
    check_refused(await wgmap(cluster, "instance", "set", "7"), 2, "nothing to change")
    control = await wgmap(cluster, "instance", "set", "7", "--overlay", str(fsm.CONTROL))
    check_refused(control, 2, "the cluster's own")


# -------------------------------------------------------------------------------------- events


async def test_events_of_before_and_those_that_come(cluster: Cluster) -> None:
    ended = await wgmap(cluster, "events", "--json")
    past = [json.loads(line) for line in ended.out.splitlines()]
    said = [(event["event"], event["subject"]) for event in past if event["event"] != "leader"]
    assert said == [("founded", (b"c" * 16).hex()), ("enrolled", "a1"), ("registered", "a1")]

    process = await asyncio.create_subprocess_exec(
        *(WGMAP, "events", "--follow", "--json"),
        env={"WGMAP_SOCKET": str(cluster.socket)},
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        hub = cluster.operations.events
        async with asyncio.timeout(10):
            while not hub.followers:  # noqa: ASYNC110  # tells by no event
                await asyncio.sleep(0.01)
            await cluster.operations.revoke_peer("a1", "root", "now")
            event = json.loads(await process.stdout.readline())
    finally:
        process.terminate()
        await process.wait()
    assert (event["event"], event["subject"], event["index"]) == ("revoked", "a1", 4)


# ------------------------------------------------------------------------- backup and restore


async def test_a_backup_comes_back_in_an_empty_cluster(cluster: Cluster, tmp_path: Path) -> None:
    file = tmp_path / "wgmap.backup"
    made = await wgmap(cluster, "backup", str(file), "--json")
    assert made.code == 0
    assert "NOT in this backup" in made.err
    value = json.loads(made.out)
    assert (value["peers"], value["mappings"], value["keys_of"]) == (1, 2, [])
    assert value["bytes"] == file.stat().st_size
    assert file.stat().st_mode & 0o077 == 0
    await wgmap(cluster, "peer", "set", "a1", "--limit", "9")

    async with serving(tmp_path / "new.sock") as other:
        await other.operations.set_instance(0, None, None, ("root", "now"))
        restored = await wgmap(other, "restore", str(file), "--json")
        assert restored.code == 0, restored.err
        assert "is not known here" in restored.err
        view = json.loads(restored.out)
        assert (view["peers"], view["mappings"], view["servers_missing"]) == (1, 2, [])
        state, old = other.machine.state, cluster.machine.state
        assert state.peers["a1"] == old.peers["a1"]._replace(limit=0, revision=1)
        assert state.registrations["a1"].nonce == 1
        assert {row.version for row in state.mappings.values()} == {1025}
        actions = [row.action for row in state.audit.values()]
        assert actions == ["bootstrap", "enrol", "backup", "restore"]
        again = await wgmap(other, "restore", str(file))
        check_refused(again, 1, "from this very backup")
    check_refused(await wgmap(cluster, "restore", str(file)), 1, "it has peers")


async def test_who_was_revoked_since_stays_out(cluster: Cluster, tmp_path: Path) -> None:
    file, names = tmp_path / "wgmap.backup", tmp_path / "revoked"
    await wgmap(cluster, "backup", str(file))
    names.write_text("# by the help desk\na1  stolen\na9\n")
    async with serving(tmp_path / "new.sock") as other:
        view = await good(other, "restore", str(file), "--revoke", str(names))
        assert (view["revoked"], view["not_in_backup"]) == (["a1"], ["a9"])
        assert other.machine.state.peers["a1"].revoked
        assert not other.machine.state.mappings
        status = await good(other, "status")
        assert (status["revoked"], status["restoring"]) == (1, False)


@pytest.mark.parametrize("fault", ["cut", "flipped", "empty", "none"])
async def test_a_damaged_backup_restores_nothing(
    cluster: Cluster, tmp_path: Path, fault: str
) -> None:
    file = tmp_path / "wgmap.backup"
    await wgmap(cluster, "backup", str(file))
    data = file.read_bytes()
    middle = len(data) // 2
    flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
    file.write_bytes({"cut": data[:-3], "flipped": flipped, "empty": b"", "none": b"x"}[fault])
    async with serving(tmp_path / "new.sock") as other:
        before = list(other.machine.state.rows())
        ended = await wgmap(other, "restore", str(file))
        check_refused(ended, 2, "wgmap.backup: ")
        assert list(other.machine.state.rows()) == before


async def test_a_restore_that_was_broken_off_goes_on(cluster: Cluster, tmp_path: Path) -> None:
    file = tmp_path / "wgmap.backup"
    await wgmap(cluster, "peer", "import", write(tmp_path / "peers.jsonl", lines(1000)))
    await wgmap(cluster, "backup", str(file))
    async with serving(tmp_path / "new.sock") as other:
        propose = other.log.propose
        count = 0

        async def failing(command: bytes, deadline_s: float = 1.5) -> Any:
            nonlocal count
            count += 1
            other.log.quorum = count < 5
            return await propose(command, deadline_s)

        other.log.propose = failing  # type: ignore[method-assign]  # loses its quorum half-way
        check_refused(await wgmap(other, "restore", str(file)), 1, "no quorum")
        assert Meta.RESTORING in other.machine.state.meta
        assert (await good(other, "status"))["restoring"]
        other.log.propose, other.log.quorum = propose, True  # type: ignore[method-assign]
        assert (await good(other, "restore", str(file)))["peers"] == 1001
        assert other.machine.state.peers == cluster.machine.state.peers


def names_like(directory: Path, pattern: str) -> list[str]:
    return [path.name for path in directory.glob(pattern)]


async def test_a_backup_needs_a_quorum_and_leaves_the_old_one(
    cluster: Cluster, tmp_path: Path
) -> None:
    file = tmp_path / "wgmap.backup"
    file.write_text("yesterday's")
    cluster.log.quorum = False
    check_refused(await wgmap(cluster, "backup", str(file)), 1, "no quorum")
    assert file.read_text() == "yesterday's"
    assert names_like(tmp_path, ".wgmap.backup*") == []


async def test_keys_are_sealed_and_taken_out_again(tmp_path: Path) -> None:
    operator = PrivateKey.generate()
    state, opkey = tmp_path / "state", tmp_path / "operator.key"
    opkey.write_text(operator.encode() + "\n")
    opkey.chmod(0o600)
    async with serving(tmp_path / "admin.sock", state_dir=state) as cluster:
        ended = await wgmap(
            cluster, "backup", str(tmp_path / "b"), "--seal-to", str(operator.public)
        )
        assert ended.code == 0, ended.err
        assert "sealed keys of ms1 only" in ended.err
    out = tmp_path / "keys"
    unseal = ("restore", str(tmp_path / "b"), "--unseal-with", str(opkey), "--keys-to", str(out))
    assert (await wgmap(None, *unseal)).code == 0
    for name in ("control.key", "mesh.key"):
        assert (out / "ms1" / name).read_text() == (state / name).read_text()
        assert (out / "ms1" / name).stat().st_mode & 0o077 == 0
    check_refused(await wgmap(None, *unseal), 2, "File exists")
    check_refused(await wgmap(None, *unseal[:4]), 2, "go together")
