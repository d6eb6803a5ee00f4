"""``wgmap page`` as a process, before a cluster's admin socket in a process of its own."""

import http.client
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from support.operators import WGMAP

DEADLINE_S = 20
SERVER = """
import asyncio, pathlib, sys
from support.operators import serving
async def run():
    async with serving(pathlib.Path(sys.argv[1])):
        print("serving", flush=True)
        await asyncio.Event().wait()
asyncio.run(run())
"""


@dataclass
class PageProxy:
    """Where it listens, and what it printed."""

    address: str

    @property
    def path(self) -> str:
        parts = urlsplit(self.address)
        return f"{parts.path}?{parts.query}"

    def get(self, path: str, headers: dict[str, str] | None = None) -> tuple[int, dict[str, str]]:
        return self.ask("GET", path, headers)

    def ask(
        self, method: str, path: str, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str]]:
        connection = http.client.HTTPConnection(urlsplit(self.address).netloc, timeout=DEADLINE_S)
        try:
            connection.request(method, path, headers=headers or {})
            answer = connection.getresponse()
            answer.read()
            return answer.status, dict(answer.getheaders())
        finally:
            connection.close()


@contextmanager
def proxied(socket: Path, *options: str) -> Iterator[PageProxy]:
    """Run ``wgmap page`` before an admin socket."""
    command = [str(WGMAP), "--socket", str(socket), "page", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            process.stdout.readline()
            yield PageProxy(process.stdout.readline().strip())
        finally:
            process.terminate()
    assert process.returncode == 0


@contextmanager
def opened(folder: Path, *options: str) -> Iterator[PageProxy]:
    """Run a cluster in memory, and ``wgmap page`` before it."""
    socket = folder / "served.sock"
    tests = str(Path(__file__).parents[1])
    command = [sys.executable, "-c", SERVER, str(socket)]
    environment = {"PYTHONPATH": tests, "PATH": "/usr/bin:/bin"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"serving\n"
            with proxied(socket, *options) as proxy:
                yield proxy
        finally:
            process.kill()
