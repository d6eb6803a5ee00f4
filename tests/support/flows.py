"""Flows of UDP datagrams between namespaces, counted exactly.

``ping`` stops listening two round trips after its last packet, which counts what is late as lost.
Both ends are sockets in the namespaces, served by the test's own loop.
"""

import asyncio
import socket
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field

from support.netns import Namespace

PORT = 7777
_NUMBER = struct.Struct("!I")


@dataclass
class Flow:
    """Datagrams that were sent, and the echoes that came back."""

    sent: dict[int, float] = field(default_factory=dict)
    round_trips: dict[int, float] = field(default_factory=dict)  # number -> seconds
    refused: int = 0  # by the own kernel

    @property
    def lost(self) -> list[int]:
        """The numbers of which no echo came."""
        return [number for number in self.sent if number not in self.round_trips]

    @property
    def first_ms(self) -> float:
        """How long the first datagram and its echo took."""
        return self.round_trips[0] * 1000


@asynccontextmanager
async def flow(
    source: Namespace,
    target: Namespace,
    address: str,
    interval_s: float = 0.01,
    late_s: float = 8.0,
) -> AsyncIterator[Flow]:
    """Send to ``address``, an address of ``target``, while the block runs.

    The end waits for echoes that are still on their way: an echo may come ``late_s`` after its
    datagram. The sender is not bound: the kernel chooses the source.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with closing(_socket(source, family)) as sender, closing(_socket(target, family)) as echo:
        echo.bind((address, PORT))
        loop = asyncio.get_running_loop()
        result = Flow()
        loop.add_reader(echo, _echo, echo)
        loop.add_reader(sender, _take, sender, result)
        sending = asyncio.create_task(_send(sender, address, interval_s, result))
        try:
            yield result
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            await _last_echoes(result, late_s)
            loop.remove_reader(echo)
            loop.remove_reader(sender)


async def exchange(
    source: Namespace, target: Namespace, address: str, count: int, interval_s: float = 0.01
) -> Flow:
    """Send ``count`` datagrams and wait for the echoes."""
    async with flow(source, target, address, interval_s) as result:
        while len(result.sent) < count:  # noqa: ASYNC110  # counted by a callback
            await asyncio.sleep(interval_s / 4)
    return result


def _socket(namespace: Namespace, family: socket.AddressFamily) -> socket.socket:
    with namespace.entered():
        made = socket.socket(family, socket.SOCK_DGRAM)
    made.setblocking(False)
    return made


async def _send(sender: socket.socket, address: str, interval_s: float, result: Flow) -> None:
    number = 0
    while True:
        result.sent[number] = time.monotonic()
        try:
            sender.sendto(_NUMBER.pack(number), (address, PORT))
        except OSError:
            result.refused += 1
        number += 1
        await asyncio.sleep(interval_s)


def _echo(echo: socket.socket) -> None:
    while True:
        try:
            data, sender = echo.recvfrom(2048)
            echo.sendto(data, sender)
        except BlockingIOError:
            return
        except OSError:
            continue  # an ICMP error about an echo


def _take(sender: socket.socket, result: Flow) -> None:
    while True:
        try:
            data = sender.recv(2048)
        except BlockingIOError:
            return
        except OSError:
            result.refused += 1
            continue
        (number,) = _NUMBER.unpack(data)
        result.round_trips.setdefault(number, time.monotonic() - result.sent[number])


async def _last_echoes(result: Flow, late_s: float) -> None:
    while _awaited(result, time.monotonic() - late_s):  # noqa: ASYNC110
        await asyncio.sleep(0.01)


def _awaited(result: Flow, since: float) -> bool:
    """Say whether an echo may still come of what was sent since then."""
    return any(result.sent[number] > since for number in result.lost)
