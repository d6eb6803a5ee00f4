"""Steady data flows between namespaces, measured by one clock.

A socket stays in the namespace that it was made in, so that one process can hold both ends:
what was sent, echoed and received is then counted without any clock to compare.
"""

import asyncio
import itertools
import socket
import struct
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from pyroute2 import netns as namespaces

from wgmap.addresses import IPAddress
from wgmap.clock import now

_SEQUENCE = struct.Struct("!Q")
_FLOW_PORT = 7007


def socket_in(
    netns: str, family: int, kind: int = socket.SOCK_DGRAM, protocol: int = 0
) -> socket.socket:
    """Make a non-blocking socket inside a named network namespace."""
    namespaces.pushns(netns)
    try:
        made = socket.socket(family, kind, protocol)
    finally:
        namespaces.popns()
    made.setblocking(False)
    return made


@dataclass
class FlowRecord:
    """What became of each packet; times in seconds of ``wgmap.clock.now``."""

    interval_s: float
    sent: list[float] = field(default_factory=list)
    echoed: dict[int, float] = field(default_factory=dict)  # arrival at the far end
    returned: dict[int, float] = field(default_factory=dict)  # arrival of the echo

    @property
    def lost(self) -> int:
        """Return how many packets never came back."""
        return len(self.sent) - len(self.returned)

    @property
    def longest_gap_s(self) -> float:
        """Return the longest silence: the time between two echoes that came back, less a period.

        Arrivals count, not what was sent: packets that waited in a queue were late all the same.
        """
        return self._longest_gap_s(self.returned)

    @property
    def longest_way_out_gap_s(self) -> float:
        """Return the longest silence at the far end: the same for a flow that nothing answers."""
        return self._longest_gap_s(self.echoed)

    def _longest_gap_s(self, arrivals: dict[int, float]) -> float:
        if not self.sent:
            return 0.0
        edges = sorted([self.sent[0], *arrivals.values(), self.sent[-1]])
        longest = max(after - before for before, after in itertools.pairwise(edges))
        return max(0.0, longest - self.interval_s)

    def round_trips_ms(self) -> list[tuple[float, float | None]]:
        """Return (time sent, round trip in ms or None where it was lost) of every packet."""
        return [
            (at, (self.returned[number] - at) * 1e3 if number in self.returned else None)
            for number, at in enumerate(self.sent)
        ]


class Flow:
    """UDP packets at a fixed rate from one namespace to another, each echoed back.

    An async context manager; on leaving, it waits up to ``linger_s`` for the last echoes.
    """

    def __init__(
        self,
        source_netns: str,
        destination_netns: str,
        destination: IPAddress,
        *,
        rate: float = 100.0,
        port: int = _FLOW_PORT,
        linger_s: float = 1.0,
    ) -> None:
        self._netns = (source_netns, destination_netns)
        self._destination = (str(destination), port)
        self._family = socket.AF_INET if destination.version == 4 else socket.AF_INET6
        self._linger_s = linger_s
        self._stack = ExitStack()
        self._ended = False
        self._complete = asyncio.Event()
        self.record = FlowRecord(1 / rate)

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        with ExitStack() as stack:
            self._near = stack.enter_context(socket_in(self._netns[0], self._family))
            self._far = stack.enter_context(socket_in(self._netns[1], self._family))
            self._far.bind(self._destination)
            loop.add_reader(self._near, self._on_return)
            stack.callback(loop.remove_reader, self._near)
            loop.add_reader(self._far, self._on_arrival)
            stack.callback(loop.remove_reader, self._far)
            self._stack = stack.pop_all()
        self._sender = asyncio.create_task(self._send())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._sender.cancel()
        self._ended = True
        try:
            if self.record.lost:
                await asyncio.wait_for(self._complete.wait(), self._linger_s)
        except TimeoutError:
            pass  # the rest is lost, and counted so
        finally:
            self._stack.close()

    async def _send(self) -> None:
        due = now()
        while True:
            number = len(self.record.sent)
            self.record.sent.append(now())
            # An unreachable moment is what this measures: it counts as a lost packet.
            with suppress(OSError):
                self._near.sendto(_SEQUENCE.pack(number), self._destination)
            # Whoever was late goes on from there: a burst to make up for it overflows some queue.
            due = max(due, now() - self.record.interval_s) + self.record.interval_s
            await asyncio.sleep(max(0.0, due - now()))

    def _on_arrival(self) -> None:
        for data, source in _drain(self._far):
            self.record.echoed.setdefault(_SEQUENCE.unpack(data)[0], now())
            self._answer(data, source)

    def _answer(self, data: bytes, source: tuple[str, int]) -> None:
        with suppress(OSError):
            self._far.sendto(data, source)

    def _on_return(self) -> None:
        for data, _ in _drain(self._near):
            self.record.returned.setdefault(_SEQUENCE.unpack(data)[0], now())
        if self._ended and not self.record.lost:
            self._complete.set()


class OneWayFlow(Flow):
    """A flow that goes one way: the far end counts the packets and answers none."""

    def _answer(self, data: bytes, source: tuple[str, int]) -> None:
        pass


def _drain(reader: socket.socket) -> list[tuple[bytes, tuple[str, int]]]:
    """Read what has arrived; ICMP errors that arrived on the socket are no packets."""
    packets: list[tuple[bytes, tuple[str, int]]] = []
    while len(packets) < 256:
        try:
            data, source = reader.recvfrom(2048)
        except BlockingIOError:
            break
        except OSError:
            continue
        if len(data) == _SEQUENCE.size:
            packets.append((data, source))
    return packets
