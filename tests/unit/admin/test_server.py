"""The admin API over a real unix socket."""

import asyncio
import json
import os
import socket
import stat
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import aiohttp
import pytest

from support import fsm
from support.operators import Cluster, found, serving
from wgmap.errors import ConfigError
from wgmap.wg.keys import PublicKey
from wgmap_cluster.admin.bodies import MAX_BODY_BYTES
from wgmap_cluster.admin.peers import LIST_BATCH
from wgmap_cluster.admin.server import AdminServer
from wgmap_cluster.raft.interface import LogError

KEY = str(PublicKey(fsm.key(1)))
A1 = {"name": "a1", "prefixes": ["10.66.1.1/32"], "control_key": KEY}


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with serving(tmp_path / "admin.sock") as cluster:
        yield cluster


@pytest.fixture
async def http(cluster: Cluster) -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.UnixConnector(str(cluster.socket))
    async with aiohttp.ClientSession("http://localhost", connector=connector) as session:
        yield session


async def check_problem(response: aiohttp.ClientResponse, status: int, detail: str) -> None:
    """An error is a whole RFC 9457 object."""
    assert response.status == status
    assert response.content_type == "application/problem+json"
    body = await response.json()
    assert set(body) == {"type", "title", "status", "detail"}
    assert body["status"] == status
    assert detail in body["detail"]


async def test_peer_from_enrolment_to_revocation(http: aiohttp.ClientSession) -> None:
    async with http.post("/v1/peers", json=A1) as response:
        assert response.status == 201
        added = await response.json()
    async with http.post("/v1/peers", json=A1) as response:
        assert response.status == 200
        assert await response.json() == {**added, "changed": False}
    async with http.get("/v1/peers") as response:
        assert await response.json() == [added["peer"]]
    async with http.post("/v1/peers/a1/revoke") as response:
        assert (await response.json())["unconfirmed"] == []
    async with http.get("/v1/peers/a1") as response:
        assert (await response.json())["revoked"]


async def test_a_log_that_stops_is_told_and_not_logged_again(
    cluster: Cluster,
    http: aiohttp.ClientSession,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A full disk, say: the server is about to end, and another one has the answer."""

    async def full(*_: object, **__: object) -> NoReturn:
        raise LogError("raft.wal: cannot write: No space left on device")

    monkeypatch.setattr(cluster.log, "propose", full)
    async with http.post("/v1/peers", json=A1) as response:
        await check_problem(response, 503, "raft.wal: cannot write: No space left on device")
    assert "Traceback" not in caplog.text


async def test_the_operator_is_the_owner_of_the_connection(
    cluster: Cluster, http: aiohttp.ClientSession
) -> None:
    async with http.post("/v1/peers", json=A1):
        pass
    row = list(cluster.machine.state.audit.values())[-1]
    assert row.operator in {"root", os.environ.get("USER", ""), f"uid {os.getuid()}"}
    assert row.wall.endswith("+00:00")


BAD_BODIES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "the body"),
    "no JSON": (b"{", "the body"),
    "not UTF-8": (b'{"name": "\xff"}', "the body"),
    "NaN": (b'{"name": NaN}', "name"),
    "a number": (b"7", "the body"),
    "an array": (b"[]", "the body"),
    "null": (b"null", "the body"),
    "deep": (b"[" * 10_000, "the body"),
    "no name": (json.dumps({**A1, "name": None}).encode(), "name"),
    "name with a slash": (json.dumps({**A1, "name": "a/b"}).encode(), "name"),
    "name with a line feed": (json.dumps({**A1, "name": "a\n"}).encode(), "name"),
    "long name": (json.dumps({**A1, "name": "a" * 64}).encode(), "name"),
    "no prefix": (json.dumps({**A1, "prefixes": []}).encode(), "prefixes"),
    "prefix with host bits": (
        json.dumps({**A1, "prefixes": ["10.0.0.1/8"]}).encode(),
        "prefixes.0",
    ),
    "prefix of a number": (json.dumps({**A1, "prefixes": [167772160]}).encode(), "prefixes.0"),
    "65 prefixes": (
        json.dumps({**A1, "prefixes": [f"10.0.0.{n}/32" for n in range(65)]}).encode(),
        "prefixes",
    ),
    "short key": (json.dumps({**A1, "control_key": KEY[:40]}).encode(), "control_key"),
    "key of another alphabet": (
        json.dumps({**A1, "control_key": "*" * 44}).encode(),
        "control_key",
    ),
    "key and address": (json.dumps({**A1, "control_address": "::1"}).encode(), "either"),
    "neither": (json.dumps({**A1, "control_key": None}).encode(), "either"),
    "instance of text": (json.dumps({**A1, "instance": "1"}).encode(), "instance"),
    "instance of a bool": (json.dumps({**A1, "instance": True}).encode(), "instance"),
    "negative instance": (json.dumps({**A1, "instance": -1}).encode(), "instance"),
    "instance of 33 bits": (json.dumps({**A1, "instance": 1 << 32}).encode(), "instance"),
    "unknown key": (json.dumps({**A1, "prefix": "10.0.0.0/8"}).encode(), "prefix: unknown key"),
    "empty secret": (json.dumps({**A1, "lisp_key": ""}).encode(), "lisp_key"),
    "secret too long in bytes": (
        json.dumps({**A1, "lisp_key": "\u00e4" * 65}).encode(),
        "lisp_key",
    ),
    "secret of half a character": (b'{"lisp_key": "\\ud800"}', "the body"),
    "unknown algorithm": (
        json.dumps({**A1, "lisp_key": "x", "lisp_auth": "md5"}).encode(),
        "lisp_auth",
    ),
    "algorithm alone": (json.dumps({**A1, "lisp_auth": "sha1"}).encode(), "lisp_auth"),
    "prefix of the control plane": (
        json.dumps({**A1, "prefixes": ["fd77:676d:6170::/64"]}).encode(),
        "the cluster's own",
    ),
}


@pytest.mark.parametrize(("body", "detail"), BAD_BODIES.values(), ids=BAD_BODIES)
async def test_bad_body(
    cluster: Cluster, http: aiohttp.ClientSession, body: bytes, detail: str
) -> None:
    async with http.post("/v1/peers", data=body) as response:
        await check_problem(response, 400, detail)
    assert not cluster.machine.state.peers


async def test_errors_of_the_state_machine(http: aiohttp.ClientSession) -> None:
    async with http.post("/v1/peers", json=A1):
        pass
    async with http.post("/v1/peers", json={**A1, "name": "a2"}) as response:
        await check_problem(response, 409, "a1")
    async with http.get("/v1/peers/a9") as response:
        await check_problem(response, 404, "a9")
    async with http.post("/v1/peers/a9/revoke") as response:
        await check_problem(response, 404, "a9")


async def test_no_quorum(cluster: Cluster, http: aiohttp.ClientSession) -> None:
    cluster.log.quorum = False
    async with http.post("/v1/peers", json=A1) as response:
        await check_problem(response, 503, "no leader")


async def test_body_over_the_limit(http: aiohttp.ClientSession) -> None:
    async with http.post("/v1/peers", data=b" " * (MAX_BODY_BYTES + 1)) as response:
        await check_problem(response, 413, "")


async def test_paths_and_methods_that_are_not_there(http: aiohttp.ClientSession) -> None:
    async with http.get("/v2/peers") as response:
        await check_problem(response, 404, "/v2/peers")
    async with http.delete("/v1/peers") as response:
        await check_problem(response, 405, "DELETE")
        assert "POST" in response.headers["Allow"]


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ("", "eid"),
        ("eid=", "eid"),
        ("eid=10.0.0.1/8", "eid"),
        ("eid=a1", "eid"),
        ("eid=10.0.0.1&instance=", "instance"),
        ("eid=10.0.0.1&instance=-1", "instance"),
        ("eid=10.0.0.1&instance=4294967296", "instance"),
        ("eid=10.0.0.1&instance=99999999999999999999", "instance"),
        ("eid=10.0.0.1&iid=1", "does not take"),
    ],
)
async def test_bad_resolve(http: aiohttp.ClientSession, query: str, detail: str) -> None:
    async with http.get(f"/v1/resolve?{query}") as response:
        await check_problem(response, 400, detail)


async def test_a_long_list_arrives_whole(cluster: Cluster, http: aiohttp.ClientSession) -> None:
    count = 2 * LIST_BATCH + 1
    for number in range(count):
        enrol = fsm.enrol(f"p{number:04}", 1, f"10.66.{number >> 8}.{number & 255}/32")
        await cluster.apply(replace(enrol, control_key=number.to_bytes(32)))
    async with http.get("/v1/peers") as response:
        names = [peer["name"] for peer in await response.json()]
    assert names == [f"p{number:04}" for number in range(count)]


async def test_only_the_owner_may_open_the_socket(cluster: Cluster) -> None:
    assert stat.S_IMODE(cluster.socket.stat().st_mode) == 0o600


async def test_stale_socket_is_replaced_and_removed_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))  # never listens, and leaves its file behind
    async with serving(path):
        _, writer = await asyncio.open_unix_connection(path)
        writer.close()
        await writer.wait_closed()
    assert not path.exists()


async def test_socket_in_use_is_left_alone(cluster: Cluster, http: aiohttp.ClientSession) -> None:
    with pytest.raises(ConfigError, match="another process listens"):
        await AdminServer(cluster.operations, cluster.socket).start()
    async with http.get("/v1/status") as response:
        assert response.status == 200


async def test_other_files_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    path.write_text("precious")
    cluster = await found(path)
    with pytest.raises(ConfigError, match="is no socket"):
        await AdminServer(cluster.operations, path).start()
    assert path.read_text() == "precious"


async def test_socket_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "admin.sock", tmp_path / ("x" * 120)):
        cluster = await found(path)
        with pytest.raises(ConfigError, match=str(path.name)):
            await AdminServer(cluster.operations, path).start()


async def test_stop_twice(tmp_path: Path) -> None:
    cluster = await found(tmp_path / "run" / "admin.sock")
    server = AdminServer(cluster.operations, cluster.socket)
    await server.start()
    await server.stop()
    await server.stop()
    assert not cluster.socket.exists()


async def test_client_that_hangs_up_leaves_the_server_well(
    cluster: Cluster, http: aiohttp.ClientSession
) -> None:
    for request in (
        b"",
        b"POST /v1/peers HTTP/1.1\r\nContent-Length: 99\r\n\r\n{",
        b"\0\xff\r\n\r\n",
    ):
        _, writer = await asyncio.open_unix_connection(cluster.socket)
        writer.write(request)
        writer.close()
        await writer.wait_closed()
    async with http.get("/v1/status") as response:
        assert response.status == 200


async def test_the_digest_tells_states_apart(cluster: Cluster, http: aiohttp.ClientSession) -> None:
    async def asked() -> tuple[int, str]:
        async with http.get("/v1/digest") as response:
            body = await response.json()
        return body["applied"], body["digest"]

    before = await asked()
    assert await asked() == before == (cluster.machine.index, before[1])
    async with http.post("/v1/peers", json=A1):
        pass
    after = await asked()
    assert after[0] == before[0] + 1
    assert after[1] != before[1]
