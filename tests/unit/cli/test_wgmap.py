"""The program as operators run it: a process against a real admin socket."""

import asyncio
import ipaddress
import json
import os
import stat
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from support import fsm
from support.operators import STALENESS_S, WGMAP, Cluster, serving, wgmap
from wgmap import __version__
from wgmap.config import parse
from wgmap.wg.keys import PublicKey
from wgmap_agent.config import AgentConfig

KEY = str(PublicKey(fsm.key(1)))
ADD = ("peer", "add", "a1", "--prefix", "10.66.1.1/32", "--prefix", "fd66::1/128")
ADD_KEY = (*ADD, "--control-key", KEY)


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with serving(tmp_path / "admin.sock") as cluster:
        yield cluster


async def json_of(cluster: Cluster, *arguments: str) -> Any:
    ended = await wgmap(cluster, *arguments, "--json")
    assert ended.code == 0, ended.err
    return json.loads(ended.out)


# ------------------------------------------------------------------------------------ peer add


async def test_peer_add_prints_a_configuration_that_the_agent_takes(cluster: Cluster) -> None:
    ended = await wgmap(cluster, *ADD_KEY)
    assert (ended.code, ended.err) == (0, "")

    config = parse(ended.out.encode(), AgentConfig, "printed")
    assert config.agent.name == "a1"
    assert [str(prefix) for prefix in config.agent.prefixes] == ["10.66.1.1/32", "fd66::1/128"]
    assert [str(prefix) for prefix in config.agent.overlay] == ["10.66.0.0/16", "fd66::/64"]
    assert config.control.prefix == fsm.CONTROL
    assert [server.name for server in config.server] == ["ms1", "ms2", "ms3"]
    row = fsm.server(2)
    server = config.server[1]
    assert server.control_key == row.control_key
    assert str(server.endpoint) == "192.0.2.2:51822"
    assert server.control_address.packed == row.control_address
    assert "# " in ended.out


async def test_peer_outside_the_overlay_gets_its_prefix_routed(cluster: Cluster) -> None:
    ended = await wgmap(
        cluster, "peer", "add", "a1", "--prefix", "10.9.0.0/24", "--control-key", KEY
    )
    config = parse(ended.out.encode(), AgentConfig, "printed")
    assert "10.9.0.0/24" in [str(prefix) for prefix in config.agent.overlay]


async def test_same_peer_again_prints_the_same(cluster: Cluster) -> None:
    assert await wgmap(cluster, *ADD_KEY) == await wgmap(cluster, *ADD_KEY)


async def test_peer_add_json(cluster: Cluster) -> None:
    added = await json_of(cluster, *ADD_KEY, "--instance", "7")
    assert (added["name"], added["instance"], added["control_key"]) == ("a1", 7, KEY)
    assert parse(added["config"].encode(), AgentConfig, "printed").agent.instance == 7


async def test_plain_lisp_client(cluster: Cluster) -> None:
    client = ("peer", "add", "x1", "--prefix", "10.66.9.0/24", "--control-address", "192.0.2.99")
    lisp = ("--lisp-key", "hush", "--lisp-auth", "sha1", "--endpoint-allow", "192.0.2.0/24")
    ended = await wgmap(cluster, *client, *lisp)
    assert ended.code == 0
    assert all(line.startswith("#") for line in ended.out.splitlines())
    assert "hush" not in ended.out

    row = cluster.machine.state.peers["x1"]
    assert (row.lisp_key, row.lisp_auth, row.control_key) == (b"hush", 1, b"")
    assert row.endpoint_allow == (fsm.prefix("192.0.2.0/24"),)
    (shown,) = await json_of(cluster, "peer", "list")
    assert (shown["control_key"], shown["control_address"]) == (None, "192.0.2.99")
    detail = await wgmap(cluster, "peer", "show", "x1", "--json")
    assert json.loads(detail.out)["lisp_auth"] == "sha1"
    assert "hush" not in detail.out


async def test_lisp_authentication_is_sha256_unless_said(cluster: Cluster) -> None:
    client = ("peer", "add", "x1", "--prefix", "10.66.9.0/24", "--control-address", "192.0.2.99")
    await wgmap(cluster, *client, "--lisp-key", "hush")
    assert cluster.machine.state.peers["x1"].lisp_auth == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ADD,  # neither key nor address
        (*ADD_KEY, "--control-address", "::1"),
        ("peer", "add", "a1", "--control-key", KEY),
        ("peer", "add", "--prefix", "10.0.0.0/8", "--control-key", KEY),
        (*ADD, "--control-key", "short"),
        ("peer", "add", "a1", "--prefix", "10.0.0.1/8", "--control-key", KEY),
        ("peer", "add", "a1", "--prefix", "224.0.0.0/4", "--control-key", KEY),
        ("peer", "add", "a1", "--prefix", "fd77:676d:6170::/64", "--control-key", KEY),
        ("peer", "add", "a 1", "--prefix", "10.0.0.0/8", "--control-key", KEY),
        (*ADD_KEY, "--instance", "4294967296"),
        (*ADD_KEY, "--instance", "x"),
        (*ADD_KEY, "--endpoint-allow", "x"),
        (*ADD_KEY, "--lisp-auth", "sha1"),
        (*ADD_KEY, "--lisp-key", "x", "--lisp-auth", "md5"),
        (*ADD_KEY, "--frobnicate"),
        (*ADD, "--control-key", str(PublicKey(bytes(32)))),
        (*ADD, "--control-address", "fe80::1%lo"),
        (*ADD, "--control-address", "0.0.0.0"),
        (*ADD_KEY, "--lisp-key", ""),
        ("peer", "show", ""),
        ("peer", "revoke", ""),
        ("peer", "set", "", "--limit", "1"),
        ("peer", "set", "a1"),
        ("server", "remove", ""),
        ("resolve", "fe80::1%lo"),
        ("resolve", "10.66.1.1/16"),
        ("peer",),
        ("server",),
        (),
        ("peer", "show"),
        ("resolve", "a1"),
        ("resolve",),
        ("--socket",),
    ],
    ids=" ".join,
)
async def test_usage_errors_end_with_2(cluster: Cluster, arguments: tuple[str, ...]) -> None:
    ended = await wgmap(cluster, *arguments)
    assert (ended.code, ended.out) == (2, "")
    assert "wgmap" in ended.err
    assert "Traceback" not in ended.err
    assert not cluster.machine.state.peers


async def test_conflicts_and_unknown_names_end_with_1(cluster: Cluster) -> None:
    await wgmap(cluster, *ADD_KEY)
    taken = (*ADD, "--control-key", str(PublicKey(fsm.key(2))))
    for arguments in (
        taken,
        ("peer", "show", "a9"),
        ("peer", "revoke", "a9"),
        ("peer", "show", "a/9?x=1"),
    ):
        ended = await wgmap(cluster, *arguments)
        assert (ended.code, ended.out, ended.err.count("\n")) == (1, "", 1), arguments


# -------------------------------------------------------------------- list, show, revoke


async def test_peer_list(cluster: Cluster) -> None:
    assert await json_of(cluster, "peer", "list") == []
    await wgmap(cluster, *ADD_KEY)
    await cluster.apply(fsm.register(1, 1, "10.66.1.1/32"))

    assert await json_of(cluster, "peer", "list") == [
        {
            "name": "a1",
            "instance": 0,
            "control_key": KEY,
            "control_address": str(ipaddress.ip_address(fsm.address_of(fsm.key(1)))),
            "prefixes": ["10.66.1.1/32", "fd66::1/128"],
            "registered": True,
            "last_seen_s": 0.0,
            "revoked": False,
        }
    ]
    head, row = (await wgmap(cluster, "peer", "list")).out.splitlines()
    assert head.split() == ["NAME", "INSTANCE", "CONTROL", "ADDRESS", "STATE", "SEEN", "PREFIXES"]
    assert row.startswith("a1 ")
    assert "registered" in row


async def test_peer_show(cluster: Cluster) -> None:
    await wgmap(cluster, *ADD_KEY)
    await cluster.apply(fsm.register(1, 1, "10.66.1.1/32"))

    shown = await json_of(cluster, "peer", "show", "a1")
    assert shown["mappings"][0]["locators"] == [
        {"address": "192.0.2.11", "port": 51820, "priority": 1, "weight": 100}
    ]
    text = (await wgmap(cluster, "peer", "show", "a1")).out
    assert "192.0.2.11:51820" in text
    assert KEY in text


async def test_revoke_confirmed_by_all(cluster: Cluster) -> None:
    await wgmap(cluster, *ADD_KEY)
    ended = await wgmap(cluster, "peer", "revoke", "a1")
    assert (ended.code, ended.err) == (0, "")
    assert "ms1, ms2, ms3" in ended.out
    (peer,) = await json_of(cluster, "peer", "list")
    assert (peer["revoked"], peer["registered"]) == (True, False)


async def test_revoke_not_confirmed_by_all_ends_with_3(cluster: Cluster) -> None:
    await wgmap(cluster, *ADD_KEY)
    cluster.log.lose("ms3")
    ended = await wgmap(cluster, "peer", "revoke", "a1", "--json")
    assert ended.code == 3
    revoked = json.loads(ended.out)
    assert revoked.pop("took_s") >= 2 * STALENESS_S
    assert revoked == {
        "name": "a1",
        "confirmed": ["ms1", "ms2"],
        "unconfirmed": ["ms3"],
    }
    assert "ms3" in ended.err


# ------------------------------------------------------------------- status and resolve


def server(*values: object) -> dict[str, object]:
    fields = ("name", "state", "applied", "fresh", "reachable_agents", "release")
    return dict(zip(fields, values, strict=True))


async def test_status(cluster: Cluster) -> None:
    cluster.log.lose("ms3")
    assert await json_of(cluster, "status") == {
        "leader": "ms1",
        "term": 3,
        "cluster_id": (b"c" * 16).hex(),
        "servers": [
            server("ms1", "leader", 1, True, 4, __version__),
            server("ms2", "follower", 1, True, 0, __version__),
            server("ms3", "unreachable", None, None, None, None),
        ],
        "peers": 0,
        "revoked": 0,
        "revocation": 0,
        "mappings": 0,
        "restoring": False,
    }
    lines = (await wgmap(cluster, "status")).out.splitlines()
    assert lines[-1].split() == ["ms3", "unreachable", *"-----"]
    assert "degraded: ms3 not reached; no other may fail" in lines[0]


async def test_resolve(cluster: Cluster) -> None:
    await wgmap(cluster, *ADD_KEY)
    await cluster.apply(fsm.register(1, 1, "10.66.1.1/32"))

    assert await json_of(cluster, "resolve", "10.66.1.1") == {
        "instance": 0,
        "eid": "10.66.1.1",
        "found": True,
        "fresh": True,
        "version": 1,
        "ttl_s": 3600,
        "key": str(PublicKey(fsm.key(99))),
        "locators": [{"address": "192.0.2.11", "port": 51820, "priority": 1, "weight": 100}],
    }
    text = (await wgmap(cluster, "resolve", "10.66.1.1")).out
    assert "192.0.2.11:51820" in text
    assert "a1" in text


async def test_resolving_what_is_not_there_ends_with_1(cluster: Cluster) -> None:
    ended = await wgmap(cluster, "resolve", "fd66::9", "--instance", "3", "--json")
    assert ended.code == 1
    assert json.loads(ended.out) == {
        "instance": 3,
        "eid": "fd66::9",
        "found": False,
        "fresh": True,
        "version": None,
        "ttl_s": None,
        "key": None,
        "locators": [],
    }


async def test_the_way_of_authentication_of_a_peer_without_a_secret(cluster: Cluster) -> None:
    await wgmap(cluster, *ADD_KEY)
    refused = await wgmap(cluster, "peer", "set", "a1", "--lisp-auth", "sha1")
    assert (refused.code, refused.out) == (2, "")
    assert "no LISP key" in refused.err
    assert cluster.machine.state.peers["a1"].revision == 1


async def test_an_output_that_takes_nothing_is_one_line(cluster: Cluster) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        process = await asyncio.create_subprocess_exec(
            *(WGMAP, "--socket", cluster.socket, "status"),
            stdout=full,
            stderr=asyncio.subprocess.PIPE,
        )
        _, err = await process.communicate()
    finally:
        os.close(full)
    assert (process.returncode, err) == (1, b"wgmap: No space left on device\n")


async def test_resolve_without_a_quorum_warns(cluster: Cluster) -> None:
    await wgmap(cluster, *ADD_KEY)
    await cluster.apply(fsm.register(1, 1, "10.66.1.1/32"))
    cluster.log.quorum = False

    ended = await wgmap(cluster, "resolve", "10.66.1.1", "--json")
    assert ended.code == 0
    assert json.loads(ended.out)["fresh"] is False
    assert "out of date" in ended.err


# --------------------------------------------------------------------- options and the socket


@pytest.mark.parametrize("place", range(3))
async def test_socket_and_json_go_anywhere(cluster: Cluster, place: int) -> None:
    arguments = ["peer", "list"]
    arguments[place:place] = ["--json", "--socket", str(cluster.socket)]
    ended = await wgmap(None, *arguments)
    assert (ended.code, ended.out, ended.err) == (0, "[]\n", "")


async def test_socket_option_wins_over_the_environment(cluster: Cluster, tmp_path: Path) -> None:
    ended = await wgmap(cluster, "--socket", str(tmp_path / "none.sock"), "status")
    assert ended.code == 1
    assert "none.sock" in ended.err


async def test_no_server_is_one_line_and_1(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("none.sock", "file", "x" * 200):
        ended = await wgmap(None, "status", "--socket", str(tmp_path / name))
        assert (ended.code, ended.out, ended.err.count("\n")) == (1, "", 1)
        assert ("no map server runs here" in ended.err) == (len(name) < 200), "and what to do"


async def test_no_quorum_ends_with_1(cluster: Cluster) -> None:
    cluster.log.loses_answers = True
    ended = await wgmap(cluster, *ADD_KEY)
    assert ended.code == 1
    assert "try again" in ended.err


def test_the_program_is_installed() -> None:
    mode = Path(sys.executable).with_name("wgmap").stat().st_mode
    assert mode & stat.S_IXUSR
