"""UDP endpoints, over loopback."""

import asyncio
import errno
import ipaddress
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from wgmap.net.errors import NetworkError
from wgmap.udp import SocketAddress, UdpEndpoint, open_socket

LOOPBACK = ipaddress.ip_address("127.0.0.1")
LOOPBACK6 = ipaddress.ip_address("::1")


class Inbox:
    """Collects datagrams and lets a test wait for a number of them."""

    def __init__(self) -> None:
        self.datagrams: list[bytes] = []
        self._came = asyncio.Event()

    def take(self, data: bytes, _source: SocketAddress) -> None:
        self.datagrams.append(data)
        self._came.set()

    async def wait_for(self, count: int) -> None:
        async with asyncio.timeout(5):
            while len(self.datagrams) < count:
                self._came.clear()
                await self._came.wait()


@contextmanager
def endpoint(inbox: Inbox, **limits: int) -> Iterator[tuple[UdpEndpoint, SocketAddress]]:
    opened = open_socket(LOOPBACK, 0)
    made = UdpEndpoint(opened, inbox.take, **limits)  # type: ignore[arg-type]
    made.start()
    yield made, opened.getsockname()
    made.close()


async def test_datagrams_come_in_order_with_their_source() -> None:
    inbox = Inbox()
    with endpoint(inbox) as (receiver, address), endpoint(Inbox()) as (sender, _):
        for number in range(200):
            assert sender.send(b"%d" % number, address)
        await inbox.wait_for(200)
        assert inbox.datagrams == [b"%d" % number for number in range(200)]
        assert receiver.counters.received == sender.counters.sent == 200


async def test_a_flood_lets_others_have_their_turn() -> None:
    inbox = Inbox()
    with endpoint(inbox, max_a_turn=10) as (_, address), endpoint(Inbox()) as (sender, _):
        for _ in range(100):
            sender.send(b"x", address)
        turns = 0
        while len(inbox.datagrams) < 100:
            before = len(inbox.datagrams)
            await asyncio.sleep(0)
            assert len(inbox.datagrams) - before <= 10
            turns += 1
            assert turns < 10_000
        assert turns >= 10


async def test_what_is_too_long_is_counted_and_not_delivered() -> None:
    inbox = Inbox()
    limits = endpoint(inbox, max_datagram=100)
    with limits as (receiver, address), endpoint(Inbox()) as (sender, _):
        for size in (101, 100, 5000, 0):
            sender.send(b"x" * size, address)
        await inbox.wait_for(2)
        assert [len(data) for data in inbox.datagrams] == [100, 0]
        assert receiver.counters.oversized == 2


async def test_what_cannot_be_sent_is_counted() -> None:
    with endpoint(Inbox()) as (sender, address):
        assert not sender.send(b"x" * 70_000, address)
        assert sender.counters.send_dropped == 1


async def test_after_stop_nothing_is_delivered_until_start() -> None:
    inbox = Inbox()
    with endpoint(inbox) as (receiver, address), endpoint(Inbox()) as (sender, _):
        receiver.stop()
        sender.send(b"kept by the kernel", address)
        await asyncio.sleep(0)
        assert inbox.datagrams == []
        receiver.start()
        await inbox.wait_for(1)


def test_ipv6_and_a_taken_port() -> None:
    first = open_socket(LOOPBACK6, 0)
    assert first.family == socket.AF_INET6
    with pytest.raises(NetworkError, match=r"UDP socket \[::1\]:") as caught:
        open_socket(LOOPBACK6, first.getsockname()[1])
    assert caught.value.errno == errno.EADDRINUSE
    first.close()
