"""A program without descriptors: it says so now and then, and serves again when it has some."""

import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.netns import wait_until
from wgmap_chaos.faults.descriptors import limited

# Serves a unix socket as asyncio does by itself ("plain"), or as we do; says what it logs.
SERVER = """
import asyncio, socket, sys
from pathlib import Path
from wgmap import log
from wgmap.streams import StreamServer

async def serve(reader, writer):
    writer.write(await reader.read(1))

async def main(path, how):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    if how == "plain":
        await asyncio.start_server(serve, sock=listener)
    else:
        await StreamServer(serve, 50, 1 << 10, log.Log("test")).start(listener)
    print("ready", flush=True)
    await asyncio.Event().wait()

log.setup("test")
asyncio.run(main(*sys.argv[1:]))
"""
CLIENTS, SERVED = 12, 3
SAYS = {"plain": "Traceback", "ours": "a client cannot be accepted"}
MOST_LINES = 5  # one a second


@pytest.mark.parametrize("how", ["plain", "ours"])
def test_it_is_told_in_a_few_lines_and_all_are_served_in_the_end(tmp_path: Path, how: str) -> None:
    path, log = tmp_path / "socket", tmp_path / "log"
    with serving(path, log, how) as pid, contextlib.ExitStack() as clients:
        with limited([pid], spare=SERVED):
            connected = [clients.enter_context(connect(path)) for _ in range(CLIENTS)]
            assert [answered(one) for one in connected[:SERVED]] == [True] * SERVED
            wait_until(lambda: SAYS[how] in log.read_text(), "it says so")
            if how == "plain":  # so it is worth the trouble: else asyncio has been cured
                wait_until(lambda: log.read_text().count(SAYS[how]) > 50, "it says so too often")
        assert all(answered(one) for one in connected[SERVED:])  # none was turned away
    if how == "ours":
        assert len(log.read_text().splitlines()) <= MOST_LINES


@contextlib.contextmanager
def serving(path: Path, log: Path, how: str) -> Iterator[int]:
    argv = [sys.executable, "-c", SERVER, str(path), how]
    with (
        log.open("w") as file,
        subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=file) as process,
    ):
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield process.pid
        finally:
            process.kill()


def connect(path: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(10)
    client.connect(str(path))
    return client


def answered(client: socket.socket) -> bool:
    client.send(b"x")
    return client.recv(1) == b"x"
