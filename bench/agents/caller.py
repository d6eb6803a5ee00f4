"""An application on the agent's host: it sends to many, and hears who answers."""

import select
import socket
import struct
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from results import quantile

from wgmap.clock import now
from wgmap_chaos.flow import socket_in

PORT = 9000
LOST_S = 5.0  # a first packet without an answer for so long
TICK_S = 0.005
_NUMBER = struct.Struct("!Q")
_SO_RCVBUFFORCE = 33  # asm-generic/socket.h


@dataclass
class Contacts:
    """First packets, and when their answers came."""

    seconds: float = 0.0
    took_ms: list[float] = field(default_factory=list)
    lost: int = 0

    def part_ms(self, part: float) -> float:
        """Return the time within which that part of the answers came; NaN where none did."""
        return quantile(self.took_ms, part) if self.took_ms else float("nan")


class Caller:
    """One socket in a namespace."""

    def __init__(self, netns: str) -> None:
        self._socket = socket_in(netns, socket.AF_INET)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 8 << 20)
        self._numbers = 0

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def contact(self, whom: Sequence[IPv4Address], window: int) -> Contacts:
        """Send one packet to each, so many at a time without an answer."""
        done, began = Contacts(), now()
        waiting = iter(whom)
        out: dict[int, float] = {}
        while True:
            while len(out) < window and (to := next(waiting, None)) is not None:
                out[self._send(to)] = now()
            if not out:
                break
            self._take(done, out, 0.05)
            late = [number for number, at in out.items() if now() - at > LOST_S]
            for number in late:
                del out[number]
            done.lost += len(late)
        done.seconds = now() - began
        return done

    def paced(self, whom: Sequence[IPv4Address], period_s: float) -> Contacts:
        """Send one packet to each, one in each period, whatever comes back."""
        done, began = Contacts(), now()
        out: dict[int, float] = {}
        for number, to in enumerate(whom):
            while (left := began + number * period_s - now()) > 0:
                self._take(done, out, left)
            out[self._send(to)] = now()
        end = now() + LOST_S
        while out and (left := end - now()) > 0:
            self._take(done, out, left)
        done.lost, done.seconds = len(out), now() - began
        return done

    def _take(self, done: Contacts, out: dict[int, float], wait_s: float) -> None:
        """Take in what comes, for so long at most."""
        select.select([self._socket], [], [], min(wait_s, 0.05))
        for number in self._answers():
            if number in out:
                done.took_ms.append((now() - out.pop(number)) * 1e3)

    def exchange(
        self, whom: Sequence[IPv4Address], period_s: float, seconds: float
    ) -> tuple[int, int]:
        """Send everybody a packet in each period, evenly; return how many, and the answers."""
        sent = answered = 0
        began = now()
        while (passed := now() - began) < seconds:
            while sent < passed * len(whom) / period_s:
                self._send(whom[sent % len(whom)])
                sent += 1
            answered += len(self._answers())
            time.sleep(TICK_S)
        select.select([self._socket], [], [], 0.1)
        return sent, answered + len(self._answers())

    def scan(self, whom: Sequence[IPv4Address], rate: float) -> None:
        """Send one packet to each, so many a second, whoever answers."""
        began = now()
        for number, to in enumerate(whom):
            while number > (now() - began) * rate:
                time.sleep(TICK_S)
            self._send(to)

    def _send(self, to: IPv4Address) -> int:
        self._numbers += 1
        with suppress(OSError):  # an ICMP error of something sent before: this one counts as lost
            self._socket.sendto(_NUMBER.pack(self._numbers), (str(to), PORT))
        return self._numbers

    def _answers(self) -> list[int]:
        numbers: list[int] = []
        while True:
            try:
                data = self._socket.recv(64)
            except BlockingIOError:
                return numbers
            except OSError:
                continue
            if len(data) == _NUMBER.size:
                numbers.append(_NUMBER.unpack(data)[0])
