"""A replica without a log: ``python -m support.stub_replica --config FILE``.

Feeds a fixed network to responders with a lease that lasts, and echoes what is forwarded.
Agent a1 has the control address in STATE_DIR/a1, or one of loopback.
Where STATE_DIR/fail holds a number it ends with that code instead; where STATE_DIR/deaf exists
it does not listen to SIGTERM.
"""

import argparse
import asyncio
import contextlib
import signal
import sys
from pathlib import Path

from support.tables import META, enrolled, mapped, packed
from wgmap.clock import now
from wgmap.config import load
from wgmap_cluster.config import ServerConfig
from wgmap_cluster.feed import (
    SOCKET_NAME,
    Answer,
    Connection,
    FeedError,
    FeedServer,
    Forward,
    Lease,
    Rows,
    TableBegin,
    TableEnd,
)
from wgmap_cluster.fsm.rows import Change, PeerRow


def on_loopback(change: Change, address: str) -> Change:
    """Enrol a peer with an address of loopback."""
    assert isinstance(change.row, PeerRow)
    return change._replace(row=change.row._replace(control_address=packed(address)))


def rows(state_dir: Path) -> tuple[Change, ...]:
    address = "127.0.0.21"
    with contextlib.suppress(FileNotFoundError):
        address = (state_dir / "a1").read_text()
    return (*ROWS, on_loopback(enrolled("a1"), address))


ROWS = (
    *META,
    on_loopback(enrolled("a2"), "127.0.0.22"),
    mapped("a1", "10.66.1.1/32"),
    mapped("a2", "10.66.2.1/32"),
)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path, required=True)
    state_dir = load(parser.parse_args().config, ServerConfig).server.state_dir
    with contextlib.suppress(FileNotFoundError):
        return int((state_dir / "fail").read_text())
    if (state_dir / "deaf").exists():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    asyncio.run(_serve(state_dir))
    return 0


async def _serve(state_dir: Path) -> None:
    with FeedServer(state_dir / SOCKET_NAME) as server:
        while True:
            connection = await server.accept()
            with contextlib.suppress(FeedError):
                await _feed(connection, rows(state_dir))
            connection.close()


async def _feed(connection: Connection, rows: tuple[Change, ...]) -> None:
    await connection.receive()
    for message in (TableBegin(5), Rows(rows), TableEnd(5), Lease(now() + 3600)):
        connection.send(message)
    while True:
        said = await connection.receive()
        if isinstance(said, Forward):
            connection.send(Answer(said.source, said.datagram))


if __name__ == "__main__":
    sys.exit(main())
