"""A replica as a real process, with a real log, a test client on its feed socket."""

import asyncio
import contextlib
import ipaddress
import json
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from support.replica import Client, map_register
from support.replica_process import ReplicaProcess
from wgmap_cluster.feed import ResponderNote
from wgmap_cluster.fsm.rows import Meta, Table

PEER = "127.0.0.7"
SOURCE = (PEER, 40000)


@pytest.fixture
async def replica(tmp_path: Path) -> AsyncIterator[ReplicaProcess]:
    made = ReplicaProcess(tmp_path)
    made.start()
    yield made
    made.kill()


async def ask(replica: ReplicaProcess, method: str, path: str, body: Any = None) -> Any:
    url = f"http://admin/v1/{path}"
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(replica.admin))) as session,
        session.request(method, url, json=body) as answer,
    ):
        assert answer.status < 300, await answer.text()
        return await answer.json()


async def enrol(replica: ReplicaProcess, name: str = "a1", address: str = PEER) -> None:
    body = {"name": name, "prefixes": ["10.66.1.0/24"], "control_address": address}
    await ask(replica, "POST", "peers", body)


def register(nonce: int, *prefixes: str, ttl: int = 60) -> bytes:
    return map_register(nonce, *prefixes, at=PEER, ttl=ttl)


def prefixes(client: Client) -> list[str]:
    return sorted(
        str(ipaddress.ip_network((raw[1:], raw[0]))) for _, raw in client.tables[Table.MAPPINGS]
    )


async def test_register_lookup_and_revoke(replica: ReplicaProcess) -> None:
    client = await replica.attach()
    await client.until(lambda: Meta.CLUSTER_ID in client.tables[Table.META])
    await enrol(replica)
    notify = await client.register(register(1, "10.66.1.0/24"), SOURCE)
    assert notify.nonce == 1
    assert prefixes(client) == ["10.66.1.0/24"], "told before it is acknowledged"
    found = await ask(replica, "GET", "resolve?eid=10.66.1.9")
    assert (found["found"], found["fresh"], found["version"]) == (True, True, 1)
    peers = await ask(replica, "GET", "peers")
    assert [(peer["name"], peer["registered"]) for peer in peers] == [("a1", True)]
    revoking = asyncio.create_task(ask(replica, "POST", "peers/a1/revoke"))
    await client.until(lambda: client.tables[Table.REVOCATIONS])
    assert not revoking.done(), "no responder has confirmed it yet"
    client.connection.send(ResponderNote({"index": client.index}))
    assert (await revoking)["unconfirmed"] == []
    assert prefixes(client) == []
    await client.close()


async def test_what_was_acknowledged_survives_kill_and_restart(replica: ReplicaProcess) -> None:
    client = await replica.attach()
    await enrol(replica)
    await client.register(register(7, "10.66.1.0/24"), SOURCE)
    index = client.index
    replica.kill()
    await client.close()
    replica.start()
    again = await replica.attach(index)
    older = await again.register(register(3, "10.66.1.5/32"), SOURCE)
    assert older.nonce == 7, "the nonce is replicated state"
    assert [str(record.eid.prefix) for record in older.records] == ["10.66.1.0/24"]
    assert again.copies == 0, "it knew all but what came after its index"
    fresh = await replica.attach()
    assert prefixes(fresh) == ["10.66.1.0/24"]
    for each in (again, fresh):
        await each.close()


async def test_sigterm_ends_it_cleanly(replica: ReplicaProcess) -> None:
    client = await replica.attach()
    assert await replica.terminate() == 0
    assert not replica.socket.exists()
    assert not replica.admin.exists()
    assert "Traceback" not in replica.output()
    await client.close()


async def test_a_damaged_log_is_one_line_and_an_exit_code(replica: ReplicaProcess) -> None:
    client = await replica.attach()
    await enrol(replica)
    await client.close()
    await replica.terminate()
    (wal,) = (replica.directory / "state").glob("*wal*")
    data = bytearray(wal.read_bytes())
    data[len(data) // 3] ^= 0xFF
    wal.write_bytes(data)
    replica.start()
    assert await replica.wait() == 74
    last = replica.output().splitlines()[-1]
    assert last.startswith("wgmap-replica: ")
    assert wal.name in last
    assert "Traceback" not in replica.output()


async def test_a_wrong_configuration_is_named(tmp_path: Path) -> None:
    replica = ReplicaProcess(tmp_path)
    replica.config.write_text('[server]\nname = "ms1"\nstate_dir = "x"\nunknown = 1\n')
    replica.start()
    assert await replica.wait() == 2
    assert "server.unknown: unknown key" in replica.output()


async def test_a_burst_of_registers_of_many_peers(replica: ReplicaProcess) -> None:
    client = await replica.attach()
    for number in range(1, 31):
        body = {
            "name": f"p{number}",
            "prefixes": [f"10.66.{number}.0/24"],
            "control_address": f"127.0.1.{number}",
        }
        await ask(replica, "POST", "peers", body)
    for number in range(1, 31):
        at = f"127.0.1.{number}"
        client.forward(map_register(1, f"10.66.{number}.0/24", at=at), (at, 40000))
    await client.until(lambda: len(client.answers) == 30)
    assert len(prefixes(client)) == 30
    await client.close()


async def test_the_operators_status(replica: ReplicaProcess) -> None:
    client = await replica.attach()
    status = await ask(replica, "GET", "status")
    assert status["leader"] == "ms1"
    (server,) = status["servers"]
    assert (server["name"], server["state"], server["fresh"]) == ("ms1", "leader", True)
    assert json.dumps(status)
    await asyncio.gather(*(client.barrier(number) for number in range(50)))
    await client.close()


def tcp_sockets(pid: int) -> list[str]:
    """List the TCP sockets of a process, of either family and in any state."""
    own = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            own.add(str(descriptor.readlink()))
    tables = (Path(f"/proc/{pid}/net/{name}").read_text() for name in ("tcp", "tcp6"))
    rows = [line.split() for table in tables for line in table.splitlines()[1:]]
    return [row[1] for row in rows if f"socket:[{row[9]}]" in own]


async def test_a_single_server_opens_no_tcp_port(replica: ReplicaProcess) -> None:
    client = await replica.attach()
    await enrol(replica)
    await client.register(register(1, "10.66.1.0/24"), SOURCE)
    assert replica.process is not None
    assert tcp_sockets(replica.process.pid) == []
    (server,) = (await ask(replica, "GET", "status"))["servers"]
    assert server["state"] == "leader", "its log runs, without a port"
    await client.close()
    with socket.create_server(("127.0.0.1", 0)) as listener:  # it would be seen
        port = f"{listener.getsockname()[1]:04X}"
        assert any(address.endswith(f":{port}") for address in tcp_sockets(os.getpid()))
