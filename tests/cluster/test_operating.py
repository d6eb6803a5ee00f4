"""Operators' work against a real server process: imports, and a drill of backup and restore."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from support.operators import WGMAP, Ended
from support.replica import map_register
from support.replica_process import ReplicaProcess
from wgmap.errors import ExitCode
from wgmap.lisp.messages import MapNotify
from wgmap.wg.keys import PrivateKey
from wgmap_cluster.supervisor import keys

PEER = "127.0.0.7"
SOURCE = (PEER, 40000)


@asynccontextmanager
async def server(directory: Path) -> AsyncIterator[ReplicaProcess]:
    make(directory)
    replica = ReplicaProcess(directory)
    replica.start()
    try:
        client = await replica.attach()
        await client.close()
        yield replica
    finally:
        replica.kill()


def make(directory: Path) -> None:
    directory.mkdir(exist_ok=True)


async def wgmap(replica: ReplicaProcess, *arguments: str) -> Ended:
    process = await asyncio.create_subprocess_exec(
        WGMAP,
        *("--socket", str(replica.admin), "--json", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())


async def good(replica: ReplicaProcess, *arguments: str) -> Any:
    ended = await wgmap(replica, *arguments)
    assert ended.code == 0, ended.err
    return json.loads(ended.out)


def inventory(path: Path, count: int) -> str:
    with path.open("w") as file:
        for number in range(count):
            address = f"10.200.{number >> 8}.{number & 255}"
            peer = {"name": f"p{number}", "prefixes": [f"10.66.{number >> 8}.{number & 255}/32"]}
            file.write(json.dumps({**peer, "control_address": address}) + "\n")
    return str(path)


async def enrolled(replica: ReplicaProcess) -> None:
    await good(
        *(replica, "peer", "add", "a1", "--prefix", "10.66.250.0/24"),
        *("--control-address", PEER),
    )


async def registered(replica: ReplicaProcess, nonce: int, ttl: int = 60) -> MapNotify:
    client = await replica.attach()
    try:
        datagram = map_register(nonce, "10.66.250.0/24", at=PEER, ttl=ttl)
        return await client.register(datagram, SOURCE)
    finally:
        await client.close()


async def test_ten_thousand_peers_over_a_real_log(tmp_path: Path) -> None:
    async with server(tmp_path / "ms1") as replica:
        file = inventory(tmp_path / "peers.jsonl", 10_000)
        assert (await good(replica, "peer", "import", file))["enrolled"] == 10_000
        status = await good(replica, "status")
        assert status["peers"] == 10_000
        replica.kill()
        replica.start()
        await (await replica.attach()).close()
        again = await good(replica, "peer", "import", file)
        assert again == {"enrolled": 0, "unchanged": 10_000}
        assert (await good(replica, "status"))["servers"][0]["applied"] > status["term"]


async def test_drill(tmp_path: Path) -> None:
    """Back up, lose everything, restore elsewhere while that is killed, and go on."""
    file, names = tmp_path / "wgmap.backup", tmp_path / "revoked"
    async with server(tmp_path / "old") as old:
        await enrolled(old)
        await good(old, "peer", "import", inventory(tmp_path / "peers.jsonl", 2000))
        assert (await registered(old, 10)).nonce == 10
        backup = await good(old, "backup", str(file))
        assert (backup["peers"], backup["mappings"]) == (2001, 1)
        assert (await registered(old, 11, ttl=61)).nonce == 11, "after the backup"
        alone = await wgmap(old, "peer", "revoke", "p7")
        assert alone.code == ExitCode.UNCONFIRMED, "no responder runs here that could confirm it"
    names.write_text("p7\n")

    async with server(tmp_path / "new") as new:
        restore = ("restore", str(file), "--revoke", str(names))
        running = asyncio.create_task(wgmap(new, *restore))
        await _restoring(new)
        new.kill()
        await running
        new.start()
        await (await new.attach()).close()
        before = await good(new, "status")
        if before["restoring"] or not before["peers"]:  # or it was done before it was killed
            view = await good(new, *restore)
            assert view["backup_of"] == backup["cluster_id"]
            assert view["cluster_id"] != backup["cluster_id"]
        status = await good(new, "status")
        assert (status["peers"], status["revoked"], status["mappings"]) == (2000, 1, 1)
        assert not status["restoring"]
        served = await good(new, "resolve", "10.66.250.1")
        assert (served["version"], served["ttl_s"]) == (1025, 3600)
        assert (await registered(new, 11, ttl=61)).nonce == 11, "agents go on from their nonce"
        assert (await good(new, "resolve", "10.66.250.1"))["version"] == 1026
        actions = [row["action"] for row in await good(new, "audit", "--limit", "2")]
        assert actions == ["backup", "restore"], "the backup tells of itself"
        refused = await wgmap(new, "peer", "set", "p7", "--limit", "1")
        assert (refused.code, "revoked" in refused.err) == (1, True)
        assert (await wgmap(new, *restore)).code == 1


async def test_who_took_a_backup_is_in_the_audit_trail(tmp_path: Path) -> None:
    operator = PrivateKey.generate().public
    async with server(tmp_path / "ms1") as replica:
        keys.make(tmp_path / "ms1" / "state")
        await good(replica, "backup", str(tmp_path / "one"))
        await good(replica, "backup", str(tmp_path / "two"), "--seal-to", str(operator))
        rows = await good(replica, "audit", "--limit", "2")
    assert [(row["action"], row["subject"]) for row in rows] == 2 * [("backup", "ms1")]
    assert all(row["operator"] and row["time"] for row in rows)
    assert rows[0]["detail"] == "without the servers' keys"
    assert rows[1]["detail"] == f"with the keys of ms1, sealed to {operator}"


async def _restoring(replica: ReplicaProcess) -> None:
    """Wait until a restore has begun (or is over already)."""
    async with asyncio.timeout(20):
        while True:
            status = await good(replica, "status")
            if status["restoring"] or status["peers"]:
                return


async def test_a_reader_that_stops_does_not_stop_the_server(tmp_path: Path) -> None:
    async with server(tmp_path / "ms1") as replica:
        await good(replica, "peer", "import", inventory(tmp_path / "peers.jsonl", 3000))
        writers = []
        for path in ("/v1/backup", "/v1/backup", "/v1/events?follow=1"):
            _, writer = await asyncio.open_unix_connection(replica.admin)
            writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            await writer.drain()
            writers.append(writer)
        assert (await good(replica, "status"))["peers"] == 3000
        for writer in writers:
            writer.transport.abort()
        async with asyncio.timeout(15):
            while (await wgmap(replica, "backup", str(tmp_path / "b"))).code:
                pass


@pytest.mark.parametrize("instance", ["0", "9"])
async def test_instances_over_a_real_log(tmp_path: Path, instance: str) -> None:
    async with server(tmp_path / "ms1") as replica:
        await good(replica, "instance", "set", instance, "--overlay", "172.16.0.0/12")
        replica.kill()
        replica.start()
        await (await replica.attach()).close()
        listed = await good(replica, "instance", "list")
        overlays = {str(each["instance"]): each["overlay"] for each in listed}
        assert overlays[instance] == ["172.16.0.0/12"]
