"""A whole server, nothing of it replaced: supervisor, replica, responder, operator."""

import ipaddress
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.supervised import DEADLINE_S, Server, wait_for
from support.tables import key, request
from wgmap.lisp.codec import decode, encode
from wgmap.lisp.messages import (
    Eid,
    Locator,
    MapNotify,
    MapNotifyAck,
    MapRegister,
    MapReply,
    Message,
    Record,
)
from wgmap_cluster.cli.main import main as wgmap
from wgmap_cluster.main import main as wgmap_server


class Peer:
    """An agent, as far as the map service sees it."""

    def __init__(self, server: Server, number: int) -> None:
        self.name = f"a{number}"
        self.prefix = ipaddress.ip_network(f"10.66.{number}.0/24")
        self.address = f"127.0.0.{30 + number}"
        self.server = server
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind((self.address, 4342))
        self.sock.settimeout(DEADLINE_S)

    def enrol(self, admin: list[str]) -> None:
        command = ["peer", "add", self.name, "--prefix", str(self.prefix)]
        assert wgmap([*admin, *command, "--control-address", self.address]) == 0

    def hear(self) -> Message:
        message = decode(self.sock.recv(4096))
        if isinstance(message, MapNotify):
            ack = encode(MapNotifyAck(message.nonce, message.records))
            self.sock.sendto(ack, self.server.address)
        return message

    def hear_reply(self) -> MapReply:
        while not isinstance(message := self.hear(), MapReply):
            assert isinstance(message, MapNotify)
        return message

    def register(self, nonce: int, name: str) -> None:
        locator = Locator(ipaddress.ip_address(self.address), key=key(name))
        record = Record(Eid(self.prefix), (locator,), ttl_min=60)
        self.sock.sendto(encode(MapRegister(nonce, (record,))), self.server.address)
        while not isinstance(message := self.hear(), MapNotify) or message.nonce != nonce:
            pass

    def ask(self, eid: str, *, refresh: bool = False) -> MapReply:
        self.sock.sendto(request(eid, refresh=refresh), self.server.address)
        return self.hear_reply()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path, replica="wgmap_cluster.replica")
    yield server
    server.close()


def test_a_server_serves_survives_its_parts_and_keeps_what_it_acknowledged(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    server.ready()
    admin = ["--socket", str(server.config.parent / "admin.sock")]
    one, two = Peer(server, 1), Peer(server, 2)
    with one.sock, two.sock:
        for peer in (one, two):
            peer.enrol(admin)
            peer.register(5, peer.name)
        assert one.ask("10.66.2.1/32").records[0].locators[0].key == key("a2")

        for role in ("replica", "responder"):
            before = server.pids()[role]
            os.kill(before, signal.SIGKILL)
            wait_for(lambda r=role, b=before: server.pids()[r] not in (None, b), role)  # type: ignore[misc]
            assert one.ask("10.66.2.1/32").records[0].locators[0].key == key("a2")
        two.register(6, "moved")
        reply = one.ask("10.66.2.1/32", refresh=True)
        assert reply.records[0].locators[0].key == key("moved")

        server.process.terminate()
        assert server.wait() == 0
        capsys.readouterr()
        assert wgmap_server(["check-state", str(server.state)]) == 0
        assert "PROBLEM" not in capsys.readouterr().out
        server.told(b"STOPPING=1")
        server.process = server.start()
        server.ready()
        assert one.ask("10.66.2.1/32").records[0].locators[0].key == key("moved")


def test_a_log_that_is_damaged_stops_the_server_with_its_reason(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    server.ready()
    server.process.terminate()
    assert server.wait() == 0
    (log,) = server.state.glob("*.wal")
    data = bytearray(log.read_bytes())
    data[len(data) // 2] ^= 0xFF
    log.write_bytes(data)
    server.process = server.start()
    assert server.wait() == 1
    output = server.output()
    assert str(log) in output
    assert "log or disk failed" in output
    assert wgmap_server(["check-state", str(server.state)]) == 1
    assert f"PROBLEM: {log}" in capsys.readouterr().out
