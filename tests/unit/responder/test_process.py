"""A real responder process on loopback, fed by the test in the replica's place."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from support.tables import META, enrolled, key, mapped, packed, request
from wgmap.clock import now
from wgmap.lisp.codec import decode, encode
from wgmap.lisp.messages import MapNotify, MapNotifyAck, MapReply
from wgmap_cluster.feed import (
    Answer,
    Attach,
    Barrier,
    BarrierDone,
    Changes,
    Connection,
    FeedMessage,
    FeedServer,
    Forward,
    Lease,
    ResponderNote,
    Rows,
    TableBegin,
    TableEnd,
)
from wgmap_cluster.fsm.rows import Change, PeerRow

DEADLINE_S = 10.0


def at(change: Change, address: str) -> Change:
    """Enrol a peer with an address of loopback."""
    assert isinstance(change.row, PeerRow)
    return change._replace(row=change.row._replace(control_address=packed(address)))


ROWS = (
    *META,
    at(enrolled("a1"), "127.0.0.11"),
    at(enrolled("a2"), "127.0.0.12"),
    mapped("a1", "10.66.1.1/32"),
    mapped("a2", "10.66.2.1/32"),
)


class Agent:
    """A UDP socket on an address of its own, port 4342."""

    def __init__(self, address: str, server: tuple[str, int]) -> None:
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.sock.bind((address, 4342))
        self.server = server

    def send(self, data: bytes) -> None:
        self.sock.sendto(data, self.server)

    async def receive(self) -> bytes:
        loop = asyncio.get_running_loop()
        return await asyncio.wait_for(loop.sock_recv(self.sock, 4096), DEADLINE_S)

    async def ask(self, eid: str) -> MapReply:
        self.send(request(eid))
        reply = decode(await self.receive())
        assert isinstance(reply, MapReply)
        return reply


class Rig:
    """The process, its UDP socket and the replica's end of its feed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.10", 0))
        self.ready, self._ready_write = os.pipe()
        self.server = FeedServer(folder / "feed.sock")
        self.config = folder / "server.toml"
        self.config.write_text(
            f'[server]\nname = "ms1"\nstate_dir = "{folder}"\n'
            '[control]\nunprotected = true\nlisten = "127.0.0.10:4342"\n'
        )
        self.process = self.start()
        self.feed: Connection | None = None

    def start(self) -> subprocess.Popen[bytes]:
        fds = (self.udp.fileno(), self._ready_write)
        command = [sys.executable, "-m", "wgmap_cluster.responder", "--config", str(self.config)]
        command += ["--socket-fd", str(fds[0]), "--ready-fd", str(fds[1])]
        return subprocess.Popen(command, pass_fds=fds)

    async def attached(self) -> Attach:
        self.feed = await asyncio.wait_for(self.server.accept(), DEADLINE_S)
        first = await asyncio.wait_for(self.feed.receive(), DEADLINE_S)
        assert isinstance(first, Attach)
        return first

    def feed_rows(self, index: int = 5, *, lease_s: float = 60.0) -> None:
        assert self.feed
        for message in (TableBegin(index), Rows(ROWS), TableEnd(index), Lease(now() + lease_s)):
            self.feed.send(message)

    async def told(self, wanted: Callable[[FeedMessage], bool]) -> FeedMessage:
        assert self.feed
        async with asyncio.timeout(DEADLINE_S):
            while not wanted(message := await self.feed.receive()):
                pass
        return message

    def agent(self, address: str) -> Agent:
        return Agent(address, self.udp.getsockname())

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        if self.feed:
            self.feed.close()
        self.server.close()
        self.udp.close()
        os.close(self.ready)
        os.close(self._ready_write)


@pytest_asyncio.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    rig.close()


async def _until_ready(rig: Rig) -> None:
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(DEADLINE_S):
        assert await loop.run_in_executor(None, os.read, rig.ready, 1) == b"1"


async def test_it_answers_pushes_forwards_and_survives_its_replica(rig: Rig) -> None:
    assert await rig.attached() == Attach(0)
    rig.feed_rows()
    await _until_ready(rig)
    one, two = rig.agent("127.0.0.11"), rig.agent("127.0.0.12")
    with one.sock, two.sock:
        reply = await one.ask("10.66.2.1/32")
        assert reply.records[0].authoritative
        assert reply.records[0].locators[0].key == key("a2")
        await _pushed_until_acknowledged(two)

        one.send(b"\x30register")
        forward = await rig.told(lambda m: isinstance(m, Forward))
        assert forward == Forward(("127.0.0.11", 4342), b"\x30register")
        assert rig.feed
        rig.feed.send(Answer(("127.0.0.11", 4342), b"the answer"))
        assert await one.receive() == b"the answer"

        await _refreshed(rig, one)

        one.send(b"\xff garbage")
        note = await rig.told(
            lambda m: isinstance(m, ResponderNote) and "refused.malformed" in m.counters
        )
        assert isinstance(note, ResponderNote)
        assert note.counters["index"] == 6

        rig.feed.close()  # the replica dies: answers go on, and the index is offered again
        assert (await one.ask("10.66.2.1/32")).records[0].authoritative
        assert await rig.attached() == Attach(6)
        assert rig.process.poll() is None


async def _pushed_until_acknowledged(agent: Agent) -> None:
    first, second = decode(await agent.receive()), decode(await agent.receive())
    assert isinstance(first, MapNotify)
    assert first == second
    assert first.records[0].locators[0].key == key("a1")
    agent.send(encode(MapNotifyAck(first.nonce, first.records)))


async def _refreshed(rig: Rig, agent: Agent) -> None:
    agent.send(request("10.66.2.1/32", refresh=True))
    barrier = await rig.told(lambda m: isinstance(m, Barrier))
    assert isinstance(barrier, Barrier)
    assert rig.feed
    rig.feed.send(Changes(6, (mapped("a2", "10.66.2.1/32", version=2),)))
    rig.feed.send(BarrierDone(barrier.number, ok=True))
    while not isinstance(message := decode(await agent.receive()), MapReply):
        assert isinstance(message, MapNotify)  # the change is pushed as well
        agent.send(encode(MapNotifyAck(message.nonce, message.records)))
    assert message.records[0].version == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_cleanly(rig: Rig, number: int) -> None:
    await rig.attached()
    rig.process.send_signal(number)
    loop = asyncio.get_running_loop()
    code = await asyncio.wait_for(loop.run_in_executor(None, rig.process.wait), DEADLINE_S)
    assert code == 0


def test_a_wrong_configuration_or_socket_is_one_line_and_an_exit_code(tmp_path: Path) -> None:
    config = tmp_path / "server.toml"
    config.write_text("[server]\nnam = 1\n")
    ended = _run(config)
    assert ended.returncode == 2
    assert "server.name" in ended.stderr
    assert ended.stderr.count("\n") == 1
    config.write_text(f'[server]\nname = "a"\nstate_dir = "{tmp_path}"\n')
    ended = _run(config)
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1)
    assert "socket-fd 0" in ended.stderr


def _run(config: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "wgmap_cluster.responder", "--config", str(config)]
    return subprocess.run(
        [*command, "--socket-fd", "0"],
        check=False,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
