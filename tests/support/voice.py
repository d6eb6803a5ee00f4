"""Speaks LISP beside an agent, through its control tunnel: what servers answer, to the byte.

    with Voice(agent) as voice:
        notify = voice.register(server, nonce=7, address=agent.underlay[0])

The agent itself must be dead (``silenced``), or its own registers come in between.
"""

import contextlib
import itertools
import os
import select
import signal
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from support.lab import Lab, wait_until
from wgmap.addresses import IPAddress, IPNetwork, host_prefix
from wgmap.clock import now
from wgmap.lisp.codec import decode, encode
from wgmap.lisp.messages import (
    LISP_PORT,
    Eid,
    Locator,
    MapNotify,
    MapNotifyAck,
    MapRegister,
    MapReply,
    MapRequest,
    Record,
    RequestRecord,
)
from wgmap_chaos.flow import socket_in
from wgmap_chaos.lab import removal
from wgmap_chaos.lab.inventory import AgentEntry, ServerEntry

KEY = bytes(range(64, 96))
_nonces = itertools.count(1 << 33)


@contextmanager
def silenced(lab: Lab, name: str) -> Iterator[AgentEntry]:
    """Kill an agent's daemon (its tunnels stay), and start it again at the end.

    It then has to go on from whatever nonce was used meanwhile.
    """
    agent = lab.file.agent(name)
    pid = agent.pids["agent"]
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not removal.alive(pid), f"{name} is dead")
    try:
        yield agent
    finally:
        lab.chaos("start-agents", name)
    wait_until(lambda: (lab.agent_status(agent) or {}).get("registered"), f"{name} is registered")


def fresh_nonces() -> int:
    """Return a number above all nonces of registers so far; 16,384 can be used from there."""
    return int(now()) << 14


def own(agent: AgentEntry) -> tuple[IPNetwork, ...]:
    """Return the prefixes that a lab's agent registers."""
    return tuple(map(host_prefix, agent.eids))


class Voice:
    """A socket on the control interface of an agent."""

    def __init__(self, agent: AgentEntry) -> None:
        self._agent = agent
        self._socket = socket_in(agent.netns, socket.AF_INET6)
        interface = agent.control_interface.encode()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface)
        self._socket.bind((str(agent.control), 0))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()

    # ----------------------------------------------------------------------------- registers

    def register_bytes(
        self,
        nonce: int,
        *locators: Locator,
        prefixes: Iterable[IPNetwork] = (),
        port: int = 51820,
        instance: int = 0,
    ) -> bytes:
        """Make a register; without locators at the agent's own underlay address."""
        at = locators or (Locator(self._agent.underlay[0], port, KEY),)
        where = tuple(prefixes) or own(self._agent)
        return encode(
            MapRegister(nonce, tuple(Record(Eid(one, instance), at, 60) for one in where))
        )

    def send(self, server: ServerEntry, datagram: bytes) -> None:
        """Send once, whatever becomes of it."""
        with contextlib.suppress(OSError):
            self._socket.sendto(datagram, (str(server.control), LISP_PORT))

    def register(
        self, server: ServerEntry, datagram: bytes, wait_s: float = 5.0
    ) -> MapNotify | None:
        """Send a register until this server answers it, or tells of a newer one."""
        nonce = int.from_bytes(datagram[4:12])
        end = now() + wait_s
        while now() < end:
            self.send(server, datagram)
            for _, message in self.heard(min(now() + 0.4, end), server):
                if isinstance(message, MapNotify) and message.nonce >= nonce:
                    return message
        return None

    # ------------------------------------------------------------------------------- lookups

    def ask(
        self,
        server: ServerEntry,
        eid: IPAddress,
        *,
        refresh: bool = False,
        wait_s: float = 1.0,
        instance: int = 0,
    ) -> MapReply | None:
        """Ask one server once; None where it does not answer in time."""
        nonce = next(_nonces)
        question = MapRequest(
            nonce,
            (self._agent.control,),
            (RequestRecord(Eid(host_prefix(eid), instance)),),
            smr_invoked=refresh,
        )
        self.send(server, encode(question))
        for _, message in self.heard(now() + wait_s, server):
            if isinstance(message, MapReply) and message.nonce == nonce:
                return message
        return None

    def heard(
        self, end: float, server: ServerEntry | None = None
    ) -> Iterator[tuple[str, MapReply | MapNotify]]:
        """Yield what comes (from one server) until a time; pushes are acknowledged."""
        while (left := end - now()) > 0:
            if not select.select([self._socket], [], [], left)[0]:
                return
            data, (address, *_) = self._socket.recvfrom(65535)
            message = decode(data)
            if isinstance(message, MapNotify) and not self._is_answer(message):
                ack = encode(MapNotifyAck(message.nonce, message.records))
                self._socket.sendto(ack, (address, LISP_PORT))
                continue
            if server is not None and address != str(server.control):
                continue
            assert isinstance(message, MapReply | MapNotify)
            yield address, message

    def _is_answer(self, notify: MapNotify) -> bool:
        """Tell the answer to a register from a push: pushes have random nonces of 64 bits."""
        return notify.nonce < 1 << 48


def ports(message: MapReply | MapNotify | None) -> set[int]:
    """Return the ports of all locators: tests tell registers apart by them."""
    if message is None:
        return set()
    return {one.port for record in message.records for one in record.locators}
