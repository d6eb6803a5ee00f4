"""Both ends of the feed over real sockets."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from wgmap_cluster.feed import (
    Answer,
    Attach,
    Changes,
    Connection,
    FeedClosedError,
    FeedError,
    FeedServer,
    Forward,
    Lease,
    Rows,
    TableBegin,
    TableEnd,
    connect,
)
from wgmap_cluster.feed.transport import LOW_WATER, MAX_BUFFERED, TURN_S
from wgmap_cluster.fsm.rows import Change, Table

ROWS = tuple(Change(Table.META, f"key{n}", bytes(100)) for n in range(20_000))
BIG = Answer(("::1", 1), bytes(60_000))


class Pair:
    """A connected feed."""

    def __init__(self, replica: Connection, responder: Connection) -> None:
        self.replica = replica
        self.responder = responder


@pytest_asyncio.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    with FeedServer(tmp_path / "feed.sock") as server:
        responder, replica = await asyncio.gather(connect(tmp_path / "feed.sock"), server.accept())
    yield Pair(replica, responder)
    replica.close()
    responder.close()


async def test_messages_arrive_in_the_order_they_were_sent(pair: Pair) -> None:
    pair.responder.send(Attach(4))
    assert await pair.replica.receive() == Attach(4)
    sent = [TableBegin(5), Rows(ROWS[:3]), TableEnd(5), Changes(6, ROWS[3:5]), Lease(9.5)]
    for message in sent:
        pair.replica.send(message)  # type: ignore[arg-type]  # all of them are messages
    assert [await pair.responder.receive() for _ in sent] == sent


async def test_a_long_copy_is_paced_by_drain_and_arrives_whole(pair: Pair) -> None:
    async def copy() -> None:
        for start in range(0, len(ROWS), 500):
            pair.replica.send(Rows(ROWS[start : start + 500]))
            await pair.replica.drain()
            assert pair.replica.buffered <= LOW_WATER
        pair.replica.send(TableEnd(1))

    sender = asyncio.create_task(copy())
    got: list[Change] = []
    while not isinstance(message := await pair.responder.receive(), TableEnd):
        assert isinstance(message, Rows)
        got.extend(message.changes)
    await sender
    assert tuple(got) == ROWS


async def test_a_reader_that_takes_long_over_each_message_lets_others_have_their_turn(
    pair: Pair,
) -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    for number in range(10):
        pair.replica.send(Lease(float(number)))
    task = asyncio.create_task(others())
    between = []
    for number in range(10):
        before = turns
        assert await pair.responder.receive() == Lease(float(number))
        between.append(turns - before)
        _work()
    task.cancel()
    assert all(between[2:])  # after the first the others only begin


def _work() -> None:
    """Take as long as who applies a packet full of rows."""
    time.sleep(TURN_S)


async def test_a_reader_that_stands_still_loses_the_connection(pair: Pair) -> None:
    def send_without_end() -> None:
        for _ in range(2 * MAX_BUFFERED // 60_000):
            pair.replica.send(BIG)

    with pytest.raises(FeedClosedError, match="does not read"):
        send_without_end()
    assert pair.replica.closed
    assert pair.replica.buffered == 0
    with pytest.raises(FeedClosedError):
        pair.replica.send(Lease(1.0))
    with pytest.raises(FeedClosedError):
        await pair.replica.drain()


async def test_what_may_be_left_out_is_left_out_when_the_buffer_is_full(pair: Pair) -> None:
    forward = Forward(("::1", 4342), bytes(60_000))
    accepted = 0
    while pair.responder.offer(forward):
        accepted += 1
    assert pair.responder.closed is None
    assert pair.responder.buffered <= LOW_WATER + 61_000
    for _ in range(accepted):
        assert await pair.replica.receive() == forward
    await asyncio.wait_for(pair.responder.drain(), 5)
    assert pair.responder.offer(forward)
    assert await pair.replica.receive() == forward


async def test_the_end_of_the_other_side_is_an_end_of_file(pair: Pair) -> None:
    waiting = asyncio.create_task(pair.responder.receive())
    pair.replica.close()
    with pytest.raises(FeedClosedError):
        await asyncio.wait_for(waiting, 5)
    with pytest.raises(FeedClosedError):
        await pair.responder.receive()
    assert pair.responder.offer(Attach(1)) is False


async def test_a_reset_counts_as_end_of_file(pair: Pair) -> None:
    pair.replica.send(Lease(1.0))  # unread when the responder goes: the kernel resets
    pair.responder.close()
    with pytest.raises(FeedClosedError):
        await asyncio.wait_for(pair.replica.receive(), 5)


async def test_closing_wakes_the_own_reader_and_is_idempotent(pair: Pair) -> None:
    waiting = asyncio.create_task(pair.responder.receive())
    await asyncio.sleep(0)
    pair.responder.close()
    pair.responder.close()
    with pytest.raises(FeedClosedError, match="closed here"):
        await asyncio.wait_for(waiting, 5)


async def test_a_cancelled_receive_loses_nothing(pair: Pair) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(pair.responder.receive(), 0.01)
    pair.replica.send(Lease(2.0))
    assert await asyncio.wait_for(pair.responder.receive(), 5) == Lease(2.0)


async def test_a_packet_that_is_no_message_closes_the_connection(tmp_path: Path) -> None:
    raw = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with raw, FeedServer(tmp_path / "feed.sock") as server:
        raw.connect(str(tmp_path / "feed.sock"))
        replica = await server.accept()
        raw.send(b"\x92\x01\xc0")
        with pytest.raises(FeedError, match="not a number"):
            await replica.receive()
        assert replica.closed
        raw.settimeout(5)
        assert raw.recv(10) == b""


async def test_connecting_waits_for_the_replica_and_survives_its_restart(tmp_path: Path) -> None:
    path = tmp_path / "feed.sock"
    connecting = asyncio.create_task(connect(path))
    done, _ = await asyncio.wait({connecting}, timeout=0.05)
    assert not done
    with FeedServer(path) as server:
        replica = await asyncio.wait_for(server.accept(), 5)
        responder = await connecting
        replica.close()
        with pytest.raises(FeedClosedError):
            await responder.receive()
    stale = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    stale.bind(str(path))  # as a killed replica leaves it: a name that nobody listens on
    stale.close()
    again = asyncio.create_task(connect(path))
    with FeedServer(path) as server:
        (await asyncio.wait_for(server.accept(), 5)).close()
    (await again).close()


async def test_the_socket_is_its_owners_alone(tmp_path: Path) -> None:
    with FeedServer(tmp_path / "feed.sock"):
        assert (tmp_path / "feed.sock").stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / "feed.sock").exists()


async def test_a_path_longer_than_a_socket_address_works(tmp_path: Path) -> None:
    folder = tmp_path / ("d" * 120)
    folder.mkdir()
    with FeedServer(folder / "feed.sock") as server:
        responder, replica = await asyncio.gather(connect(folder / "feed.sock"), server.accept())
        responder.send(Attach(1))
        assert await replica.receive() == Attach(1)
        responder.close()
        replica.close()
