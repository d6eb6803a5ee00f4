"""Asks every server the same again and again, and keeps when each answered."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from crowd.host import Host
from wgmap.clock import now
from wgmap.lisp.messages import MapNotify, MapReply
from wgmap_chaos.load.tunnel import Tunnel

AGAIN_S = 0.1  # a register without an answer is said again

Times = dict[str, list[float]]  # of a server -> when it answered


class Watch:
    """Lookups of one member at all servers, and changes of another one at each of them."""

    def __init__(self, hosts: Sequence[Host]) -> None:
        """Take one member more than there are servers."""
        self._asking, *registering = hosts
        servers = list(self._asking.tunnels.values())
        assert len(registering) == len(servers), "a member for each server, and one that asks"
        self._registering = {
            host: host.tunnel_to(tunnel.server.name)
            for host, tunnel in zip(registering, servers, strict=True)
        }
        self._said_at = dict.fromkeys(self._registering, float("-inf"))
        self._open: set[Host] = set()  # whose register is not acknowledged
        self.lookups: Times = defaultdict(list)
        self.sure: Times = defaultdict(list)  # with authority
        self.registers: Times = defaultdict(list)

    async def run(self, seconds: float, period_s: float) -> dict[str, Any]:
        """Ask for so long, in each period; return when who answered what."""
        for host in (self._asking, *self._registering):
            host.listener = self._heard
        end = now() + seconds
        while now() < end:
            for tunnel in self._asking.tunnels.values():
                self._asking.probe(tunnel, 1)
            for host, tunnel in self._registering.items():
                self._register(host, tunnel)
            await asyncio.sleep(period_s)
        for host in (self._asking, *self._registering):
            host.listener = None
        return {"lookups": self.lookups, "sure": self.sure, "registers": self.registers}

    def _register(self, host: Host, tunnel: Tunnel) -> None:
        if host in self._open and now() - self._said_at[host] < AGAIN_S:
            return
        self._said_at[host] = now()
        host.register(tunnel, fresh=host not in self._open)
        self._open.add(host)

    def _heard(self, host: Host, tunnel: Tunnel, message: MapReply | MapNotify) -> None:
        name = tunnel.server.name
        if isinstance(message, MapNotify):
            self._open.discard(host)
            self.registers[name].append(now())
            return
        self.lookups[name].append(now())
        if all(record.authoritative for record in message.records):
            self.sure[name].append(now())
