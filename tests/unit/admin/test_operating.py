"""The admin API of operators' work: conditions, positions, bad input, streams."""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from support import fsm
from support.operators import Cluster, serving, until
from wgmap.wg.keys import PublicKey
from wgmap_cluster.fsm.commands import Revoke
from wgmap_cluster.replica.events import MAX_WAITING
from wgmap_cluster.replica.operations import MAX_REVOCATIONS

Http = aiohttp.ClientSession


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with serving(tmp_path / "admin.sock") as cluster:
        await cluster.apply(fsm.enrol("a1", 1, "10.66.1.0/24"))
        yield cluster


@pytest.fixture
async def http(cluster: Cluster) -> AsyncIterator[Http]:
    connector = aiohttp.UnixConnector(str(cluster.socket))
    async with aiohttp.ClientSession("http://localhost", connector=connector) as session:
        yield session


async def test_etag_and_if_match(http: Http) -> None:
    async with http.get("/v1/peers/a1") as response:
        tag = response.headers["ETag"]
    assert tag == '"1"'
    for status, wanted in ((200, '"2"'), (412, None)):
        async with http.patch(
            "/v1/peers/a1", json={"limit": 7}, headers={"If-Match": tag}
        ) as response:
            assert (response.status, response.headers.get("ETag")) == (status, wanted)
    async with http.patch("/v1/peers/a1", json={}, headers={"If-Match": "*"}) as response:
        assert (await response.json())["changed"] is False


async def test_an_instance_is_changed_where_its_values_are_those_that_were_seen(http: Http) -> None:
    path = "/v1/instances/7"
    async with http.get(path) as response:
        first, view = response.headers["ETag"], await response.json()
    assert first == f'"{view["tag"]}"'
    for status in (200, 412):  # of two who saw the same
        async with http.patch(
            path, json={"max_mappings": status}, headers={"If-Match": first}
        ) as response:
            assert response.status == status
    async with http.get("/v1/instances") as response:
        (seven,) = [one for one in await response.json() if one["instance"] == 7]
    assert seven["max_mappings"] == 200
    assert f'"{seven["tag"]}"' != first
    async with http.patch(path, json={"max_mappings": 0}, headers={"If-Match": "*"}) as response:
        assert response.headers["ETag"] == first, "the same values"


async def test_of_two_who_revoke_one_revision_the_one_that_was_changed_stays(http: Http) -> None:
    path, tag = "/v1/peers/a1/revoke", {"If-Match": '"1"'}
    async with http.patch("/v1/peers/a1", json={"limit": 7}) as response:
        assert response.status == 200
    async with http.post(path, headers=tag) as response:
        assert response.status == 412
        assert (await response.json())["detail"].endswith("a1 is at revision 2")
    async with http.get("/v1/peers/a1") as response:
        assert (await response.json())["revoked"] is False
    for _ in range(2):  # the same again changes nothing, and is no failure
        async with http.post(path, headers={"If-Match": '"2"'}) as response:
            assert response.status == 200


BAD: dict[str, tuple[str, str, object, int]] = {
    "no peer": ("PATCH", "/v1/peers/a9", {"limit": 1}, 404),
    "no field": ("PATCH", "/v1/peers/a1", {"prefix": []}, 400),
    "no prefixes": ("PATCH", "/v1/peers/a1", {"prefixes": []}, 400),
    "big limit": ("PATCH", "/v1/peers/a1", {"limit": 65}, 400),
    "true limit": ("PATCH", "/v1/peers/a1", {"limit": True}, 400),
    "no batch": ("POST", "/v1/imports", {"peers": []}, 400),
    "501 peers": ("POST", "/v1/imports", {"peers": [{}] * 501}, 400),
    "instance": ("PATCH", "/v1/instances/x", {}, 400),
    "big instance": ("PATCH", "/v1/instances/4294967296", {}, 400),
    "overlay": ("PATCH", "/v1/instances/1", {"overlay": ["ff00::/8"]}, 400),
    "since": ("GET", "/v1/audit?since=-1", None, 400),
    "limit": ("GET", "/v1/audit?limit=10001", None, 400),
    "word": ("GET", "/v1/audit?after=1", None, 400),
    "number": ("GET", "/v1/revocations?since=x", None, 400),
    "seal": ("GET", "/v1/backup?seal_to=x", None, 400),
    "seal without keys": ("GET", f"/v1/backup?seal_to={'A' * 43}%3D", None, 400),
    "restore": ("POST", "/v1/restore", {"digest": "x"}, 400),
}


@pytest.mark.parametrize(("method", "path", "body", "status"), BAD.values(), ids=BAD)
async def test_bad_input(
    cluster: Cluster, http: Http, method: str, path: str, body: object, status: int
) -> None:
    before = list(cluster.machine.state.rows())
    async with http.request(method, path, json=body) as response:
        assert response.status == status
        assert response.content_type == "application/problem+json"
        assert (await response.json())["detail"]
    assert list(cluster.machine.state.rows()) == before


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"{}\n",
        b"x" * (1 << 20) + b"yy",
        b'{"digest": "' + b"0" * 64 + b'"}\nno backup',
        b'{"digest": "' + b"0" * 64 + b'"}\nwgmap backup\n',
    ],
)
async def test_a_restore_of_no_backup(cluster: Cluster, http: Http, data: bytes) -> None:
    before = list(cluster.machine.state.rows())
    async with http.post("/v1/restore", data=io.BytesIO(data)) as response:
        assert response.status == 400
    assert list(cluster.machine.state.rows()) == before


async def test_the_position_of_the_peer_at_fault(http: Http) -> None:
    peers = [
        {"name": f"b{n}", "prefixes": [f"10.70.{n}.0/24"], "control_address": f"10.0.0.{n}"}
        for n in range(1, 4)
    ]
    peers[2]["prefixes"] = ["10.66.1.0/24"]
    async with http.post("/v1/imports", json={"peers": peers}) as response:
        assert response.status == 409
        body = await response.json()
    assert (body["position"], "a1" in body["detail"]) == (2, True)
    async with http.post("/v1/imports", json={"peers": peers[:2]}) as response:
        assert await response.json() == {"enrolled": 2, "unchanged": 0}


async def test_limits_are_conflicts(http: Http) -> None:
    async with http.patch("/v1/peers/a1", json={"limit": 1}):
        pass
    more = {"prefixes": ["10.66.1.0/24", "10.66.2.0/24"]}
    async with http.patch("/v1/peers/a1", json=more) as response:
        assert response.status == 409
        assert "limit is 1" in (await response.json())["detail"]


async def test_what_was_revoked_since(cluster: Cluster, http: Http) -> None:
    await cluster.apply(fsm.register(1, 1, "10.66.1.1/32", data=42))
    await cluster.apply(Revoke("a1", fsm.ORIGIN))
    for since, numbers in ((0, [1]), (1, []), (7, [])):
        async with http.get(f"/v1/revocations?since={since}") as response:
            view = await response.json()
        assert (view["last"], view["more"]) == (1, False)
        assert [each["number"] for each in view["revocations"]] == numbers
    shown = cluster.operations.revocations(0)["revocations"][0]
    assert shown == {
        "number": 1,
        "peer": "a1",
        "instance": 0,
        "prefixes": ["10.66.1.0/24"],
        "key": str(PublicKey(fsm.key(42))),
    }


async def test_revocations_in_bounded_answers(cluster: Cluster) -> None:
    for number in range(2, 7):
        await cluster.apply(fsm.enrol(f"b{number}", number, f"10.66.{number}.0/24"))
        await cluster.apply(Revoke(f"b{number}", fsm.ORIGIN))
    seen: list[int] = []
    more = True
    while more:
        view = cluster.operations.revocations(seen[-1] if seen else 0, most=2)
        seen += [each["number"] for each in view["revocations"]]
        more = view["more"]
    assert seen == [1, 2, 3, 4, 5]
    assert MAX_REVOCATIONS >= 1000


async def test_a_client_that_does_not_read_is_dropped_and_told(
    cluster: Cluster, http: Http
) -> None:
    async with http.get("/v1/events?follow=1") as response:
        await until(lambda: cluster.operations.events.followers == 1)
        for nonce in range(1, 9 * MAX_WAITING):
            await cluster.apply(fsm.register(1, nonce, "10.66.1.1/32", data=nonce % 200))
        async with asyncio.timeout(10):
            lines = (await response.content.read()).splitlines()
    last = json.loads(lines[-1])
    assert (last["event"], str(MAX_WAITING) in last["detail"]) == ("dropped", True)
    assert 1000 < len(lines) < 9 * MAX_WAITING
    await until(lambda: cluster.operations.events.followers == 0)
