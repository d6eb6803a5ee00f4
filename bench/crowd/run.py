"""The process that is the crowd: it answers one line of JSON with another.

- ``{"op": "join", "first": N, "count": N, "window": N}``: so many members register, each at one
  server; answered when all are acknowledged.
- ``{"op": "live"}``: those that joined say from now on what agents say: registers, probes and
  keepalives, as often as they do.
- ``{"op": "answered"}``: one member asks until it is answered; ``at`` is when.
- ``{"op": "registers", "server": NAME, "window": N, "seconds": S, "kind": KIND}``: they register
  there without a pause, so many at a time.
- ``{"op": "watch", "seconds": S, "period_s": S}``: all servers are asked in each period; tells when
  who answered.
- ``{"op": "counts"}``: nothing. Every answer tells what was said and heard so far, with the
  processor time of this process.
"""

import asyncio
import itertools
import json
import random
import socket
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from crowd.data import Tunnels
from crowd.habits import Habits
from crowd.host import Counts, Host
from crowd.members import PLACES, PORT, Member, members
from crowd.registers import Kind, Registers
from crowd.watch import Watch
from wgmap.clock import now
from wgmap_chaos.flow import socket_in
from wgmap_chaos.lab.inventory import Inventory
from wgmap_chaos.load import place
from wgmap_chaos.load.tunnel import ServerPlace

IP_PKTINFO = 8  # linux/in.h
SO_RCVBUFFORCE = 33  # asm-generic/socket.h
BUFFER = 32 << 20
HEADERS = 20 + 8  # IPv4 and UDP: what the underlay carries
TURN = 256  # datagrams that are read in one go
AGAIN_S = 1.0  # a register without an answer is repeated
ASK_S = 0.02
JOIN_S = 600.0
_PKTINFO = struct.Struct("@i4s4s")  # in_pktinfo: interface, source to use, address in the header


class Crowd:
    """All hosts behind one socket: the source of a datagram is chosen as it is sent."""

    def __init__(self, netns: str, servers: list[ServerPlace]) -> None:
        """Open the socket in a namespace that has all of PLACES for its own."""
        self._servers = servers
        self._socket = socket_in(netns, socket.AF_INET)
        self._socket.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
        self._socket.bind(("0.0.0.0", PORT))
        self._hosts: dict[bytes, Host] = {}  # by the packed addresses of their places
        self._data = Tunnels(self._send)
        self._silent: list[Host] = []  # joined, and not yet alive
        self._habits = Habits(random.Random(1))  # noqa: S311  # when who says something
        self.counts = Counts()
        self.bytes_out = self.bytes_in = 0
        asyncio.get_running_loop().add_reader(self._socket, self._readable)

    async def join(self, whom: list[Member], window: int) -> None:
        """Have members register, so many at a time; returns when all are acknowledged."""
        waiting = iter(whom)
        out: dict[Host, float] = {}
        end = now() + JOIN_S
        while True:
            for member in _some(waiting, window - len(out)):
                host = Host(member, self._servers, self._send, self.counts)
                for where in member.places:
                    self._hosts[where.packed] = host
                self._silent.append(host)
                out[host] = 0.0
            if not out:
                return
            for host, at in out.items():
                if now() - at > AGAIN_S:
                    out[host] = now()
                    host.register(host.preferred)
            await asyncio.sleep(0.005)
            out = {host: at for host, at in out.items() if not host.acknowledged}
            if now() > end:
                raise TimeoutError(f"{len(out)} members were not acknowledged")

    def live(self) -> None:
        """Have everybody say what agents say."""
        self._habits.begin(now(), self._silent)
        self._silent.clear()

    async def answered(self) -> None:
        """Have one member ask until it is answered."""
        host = next(iter(self._hosts.values()))
        began = now()
        while host.heard_at[host.preferred] < began:
            host.probe(host.preferred, 1)
            await asyncio.sleep(ASK_S)
            if now() > began + JOIN_S:
                raise TimeoutError("no server answers")

    async def speak(self) -> None:
        """Say what is due, for ever."""
        while True:
            self._habits.speak(now())
            await asyncio.sleep(0.01)

    async def registers(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Register at one server without a pause."""
        hosts = list(dict.fromkeys(self._hosts.values()))
        kind = Kind(asked["kind"])
        registers = Registers(hosts, asked["server"], asked["window"], kind)
        return await registers.run(asked["seconds"])

    async def watch(self, seconds: float, period_s: float) -> dict[str, Any]:
        """Ask all servers again and again."""
        hosts = list(dict.fromkeys(self._hosts.values()))[: 1 + len(self._servers)]
        return await Watch(hosts).run(seconds, period_s)

    def _send(self, place: bytes, data: bytes, target: tuple[str, int]) -> None:
        info = _PKTINFO.pack(0, place, bytes(4))
        self.bytes_out += len(data) + HEADERS
        with suppress(OSError):  # as lost on the way
            self._socket.sendmsg([data], [(socket.IPPROTO_IP, IP_PKTINFO, info)], 0, target)

    def _readable(self) -> None:
        for _ in range(TURN):
            try:
                data, extra, _, source = self._socket.recvmsg(2048, 64)
            except BlockingIOError:
                return
            except OSError:
                continue  # an ICMP error of something sent before
            self.bytes_in += len(data) + HEADERS
            here = _PKTINFO.unpack(extra[0][2])[2]
            host = self._hosts.get(here)
            if host is None:
                continue
            tunnel = host.tunnels.get(source)
            if tunnel is not None and host.hear(tunnel, data, now()):
                self._habits.heard(now(), host, tunnel)
            elif tunnel is None:
                self._data.hear(host.member, here, data, source)

    def told(self) -> dict[str, Any]:
        """Return everything that is counted."""
        cpu = {"cpu_s": time.process_time(), "at": now(), "members": len(self._hosts) // 2}
        size = {"bytes_out": self.bytes_out, "bytes_in": self.bytes_in}
        return {**asdict(self.counts), **asdict(self._data.counts), **cpu, **size}


def _some(waiting: Iterator[Member], count: int) -> list[Member]:
    return list(itertools.islice(waiting, max(0, count)))


async def serve() -> None:
    """Answer one line after another until the input ends; the first says where we are."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    first = json.loads(await reader.readline())
    servers = place.servers(Inventory.model_validate(first["lab"]))
    crowd = Crowd(first["netns"], servers)
    speaking = asyncio.create_task(crowd.speak())
    print(json.dumps({"places": str(PLACES)}), flush=True)
    while line := await reader.readline():
        asked = json.loads(line)
        more: dict[str, Any] = {}
        if asked["op"] == "join":
            await crowd.join(members(asked["first"], asked["count"]), asked["window"])
        elif asked["op"] == "live":
            crowd.live()
        elif asked["op"] == "answered":
            await crowd.answered()
        elif asked["op"] == "registers":
            more = await crowd.registers(asked)
        elif asked["op"] == "watch":
            more = await crowd.watch(asked["seconds"], asked["period_s"])
        print(json.dumps({**crowd.told(), **more}), flush=True)
    speaking.cancel()


if __name__ == "__main__":
    asyncio.run(serve())
