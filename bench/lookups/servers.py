"""The servers that are compared, each a process of its own, and what asks them."""

import asyncio
import ipaddress
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from lookups.rows import ASKING, FIRST_ASKING, template
from wgmap.clock import now
from wgmap.udp import open_socket
from wgmap_cluster.feed import (
    SOCKET_NAME,
    Connection,
    FeedServer,
    Lease,
    Rows,
    TableBegin,
    TableEnd,
)
from wgmap_cluster.fsm.rows import Change

ADDRESS = "127.0.0.1"
READY_S = 300.0
SOURCES = Path(__file__).parent
_CHUNK = 500  # rows of a message
_HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers at ADDRESS."""

    name: str
    pid: int
    port: int

    def cpu_s(self) -> float:
        """Return the processor time that it has used, of all its threads (schedstat)."""
        threads = Path(f"/proc/{self.pid}/task").glob("*/schedstat")
        return sum(int(one.read_text().split()[0]) for one in threads) / 1e9

    def rss_bytes(self) -> int:
        """Return its resident memory."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Run:
    """What one run against one server gave."""

    answered: int
    lost: int
    strangers: int
    seconds: float
    cpu_s: float  # of what asks
    p50_us: float
    p90_us: float
    p99_us: float
    max_us: float
    server_cpu_s: float = 0.0

    @property
    def a_second(self) -> float:
        """Answers a second."""
        return self.answered / self.seconds

    @property
    def a_core_second(self) -> float:
        """Answers for each second of processor time that the server used."""
        return self.answered / self.server_cpu_s


def build(folder: Path, sources: Path = SOURCES) -> None:
    """Compile the programs in C into a folder; raises CalledProcessError."""
    for source in sources.glob("*.c"):
        command = ["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(folder / source.stem)]
        subprocess.run([*command, source], check=True)


@contextmanager
def in_c(folder: Path, name: str, *arguments: str) -> Iterator[Running]:
    """Run one of the servers in C."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((ADDRESS, 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([folder / name, ADDRESS, str(port), *arguments])
    try:
        yield Running(name, process.pid, port)
    finally:
        process.kill()
        process.wait()


@asynccontextmanager
async def responder(folder: Path, rows: Iterable[Change]) -> AsyncIterator[Running]:
    """Run the responder's program with these tables; yields it once it answers with authority."""
    state = folder / "state"
    state.mkdir(mode=0o700)
    udp = open_socket(ipaddress.ip_address(ADDRESS), 0)
    config = folder / "server.toml"
    config.write_text(
        f'[server]\nname = "bench"\nstate_dir = "{state}"\nadmin_socket = "{folder}/admin"\n'
        f'[control]\nunprotected = true\nlisten = "{ADDRESS}:{udp.getsockname()[1]}"\n'
    )
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "wgmap_cluster.responder", "--config", str(config)]
    command += ["--socket-fd", str(udp.fileno()), "--ready-fd", str(writing)]
    with FeedServer(state / SOCKET_NAME) as server:
        process = await asyncio.create_subprocess_exec(*command, pass_fds=(udp.fileno(), writing))
        os.close(writing)
        try:
            connection = await asyncio.wait_for(server.accept(), READY_S)
            await _feed(connection, iter(rows))
            await asyncio.wait_for(asyncio.to_thread(os.read, reading, 1), READY_S)
            listening = asyncio.create_task(_listen(connection))
            yield Running("wgmap", process.pid, udp.getsockname()[1])
            listening.cancel()
            connection.close()
        finally:
            process.kill()
            await process.wait()
            os.close(reading)
            udp.close()


async def _feed(connection: Connection, rows: Iterator[Change]) -> None:
    await connection.receive()
    connection.send(TableBegin(1))
    while chunk := tuple(islice(rows, _CHUNK)):
        connection.send(Rows(chunk))
        await connection.drain()
    connection.send(TableEnd(1))
    connection.send(Lease(now() + _HOUR_S))
    await connection.drain()


async def _listen(connection: Connection) -> None:
    while True:
        await connection.receive()


async def ask(
    folder: Path, server: Running, mappings: int, *, window: int, seconds: float, seed: int
) -> Run:
    """Ask a server with so many requests out at a time; raises CalledProcessError."""
    data, eid_at = template()
    sources = min(ASKING, window)
    before = server.cpu_s()
    process = await asyncio.create_subprocess_exec(
        *(folder / "load", ADDRESS, str(server.port), FIRST_ASKING, str(sources), str(window)),
        *(str(seconds), str(mappings), str(seed), data.hex(), str(eid_at)),
        stdout=subprocess.PIPE,
    )
    out, _ = await process.communicate()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, "load")
    return Run(**json.loads(out), server_cpu_s=server.cpu_s() - before)
