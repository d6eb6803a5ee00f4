"""A light client: speaks LISP to every map server through real control tunnels, and nothing else.

It has a key, an EID and a mapping like an agent, and no data plane: its endpoint is an address that
nobody sends to. What it registers is told apart by a number, which is the nonce and the locator's
port at once; so an answer shows which register it reflects.
"""

import asyncio
import itertools
import secrets
import socket
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from random import Random

from wgmap.addresses import IPAddress, IPNetwork, control_address, host_prefix
from wgmap.clock import now
from wgmap.lisp.codec import decode, encode
from wgmap.lisp.messages import (
    CodecError,
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
from wgmap.wg.keys import PrivateKey
from wgmap_chaos.flow import socket_in
from wgmap_chaos.history.records import Call, Op, Outcome
from wgmap_chaos.lab.topology import CONTROL_PREFIX
from wgmap_chaos.load.tunnel import ServerPlace, Tunnel

HEDGE_S = 0.3  # after this the other servers are asked as well
AGAIN_S = 1.0  # a question is repeated at all of them
REGISTER_S = 8.0
LOOKUP_S = 3.0
TTL_MIN = 60
MAX_NUMBER = 65535  # a port
_ANSWERS = MAX_NUMBER + 1  # registers are numbered below this; one push of 2**48 has such a nonce


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a light client is."""

    name: str
    eid: IPAddress
    place: IPAddress  # what it registers: an address on the underlay
    key: PrivateKey = field(default_factory=PrivateKey.generate)

    @property
    def control(self) -> IPv6Address:
        """Its address in the control tunnels."""
        return control_address(CONTROL_PREFIX, self.key.public)

    @property
    def prefix(self) -> IPNetwork:
        """What it may register."""
        return host_prefix(self.eid)


@dataclass
class _Waiting:
    """A question that is out."""

    answer: asyncio.Future[tuple[str, MapReply | MapNotify]]


class Light:
    """One client; every call ends with a record of it."""

    def __init__(
        self,
        identity: Identity,
        netns: str,
        servers: Iterable[ServerPlace],
        rng: Random,
        pushed: Callable[[Call], None],
        hedge_s: float = HEDGE_S,
    ) -> None:
        """Open its socket in a namespace; nothing is sent yet.

        ``pushed``: is given what it is told of; ``hedge_s``: so long it waits for one server alone.
        """
        self.identity, self._rng, self._pushed = identity, rng, pushed
        self._hedge_s = hedge_s
        self._data_key = secrets.token_bytes(32)
        self._socket = socket_in(netns, socket.AF_INET)
        self._socket.bind(("0.0.0.0", 0))
        self._tunnels: dict[tuple[str, int], Tunnel] = {}
        self._waiting: dict[int, _Waiting] = {}
        self._nonces = itertools.count(_ANSWERS + rng.getrandbits(62))
        self._last = 0
        self.know(servers)
        asyncio.get_running_loop().add_reader(self._socket, self._on_datagrams)

    def close(self) -> None:
        """Give its socket up."""
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()

    def know(self, servers: Iterable[ServerPlace]) -> None:
        """Take these for the map servers; a tunnel to one that is the same stays."""
        old = self._tunnels
        self._tunnels = {}
        for one in servers:
            tunnel = old.get(one.endpoint)
            if tunnel is None or tunnel.server != one:
                tunnel = Tunnel(self.identity.key, self.identity.control, one, self._send)
            self._tunnels[one.endpoint] = tunnel

    # ------------------------------------------------------------------------------- calls

    async def register(self) -> Call:
        """Register the next number at one server, or at another where that says nothing."""
        self._last += 1
        number = self._last
        assert number <= MAX_NUMBER, "a port has 16 bits"
        locator = Locator(self.identity.place, number, self._data_key)
        record = Record(Eid(self.identity.prefix), (locator,), TTL_MIN)
        begun = now()
        heard = await self._ask(number, encode(MapRegister(number, (record,))), REGISTER_S)
        call = Call(
            who=self.identity.name, op=Op.REGISTER, key=str(self.identity.eid), value=number,
            begun=begun, outcome=Outcome.UNKNOWN,
        )  # fmt: skip
        if heard is None:
            return call
        server, message = heard
        found = {"outcome": Outcome.OK, "ended": now(), "server": server}
        return call.model_copy(update={**found, "result": message.nonce})

    async def ask(self, eid: IPAddress, op: Op, only: str | None = None) -> Call:
        """Look an EID up, or refresh it; ``only``: at this server."""
        nonce = next(self._nonces)
        question = MapRequest(
            nonce,
            (self.identity.control,),
            (RequestRecord(Eid(host_prefix(eid)), subscribe=True),),
            smr_invoked=op is Op.REFRESH,
        )
        begun = now()
        heard = await self._ask(nonce, encode(question), LOOKUP_S, only)
        call = Call(
            who=self.identity.name, op=op, key=str(eid), begun=begun, outcome=Outcome.UNKNOWN
        )
        if heard is None:
            return call
        server, message = heard
        sure = all(record.authoritative for record in message.records)
        found = {"outcome": Outcome.OK, "ended": now(), "server": server, "authoritative": sure}
        return call.model_copy(update={**found, "result": shown(message.records)})

    async def _ask(
        self, nonce: int, data: bytes, patience_s: float, only: str | None = None
    ) -> tuple[str, MapReply | MapNotify] | None:
        """Ask one server, then all of them, again and again; None: no answer in time."""
        tunnels = [one for one in self._tunnels.values() if only in (None, one.server.name)]
        self._rng.shuffle(tunnels)
        waiting = _Waiting(asyncio.get_running_loop().create_future())
        self._waiting[nonce] = waiting
        end = now() + patience_s
        try:
            tunnels[0].say(data)
            pause = self._hedge_s
            while (left := end - now()) > 0:
                with suppress(TimeoutError):
                    answer = asyncio.shield(waiting.answer)
                    return await asyncio.wait_for(answer, min(pause, left))
                for tunnel in tunnels:
                    tunnel.say(data)
                pause = AGAIN_S
        finally:
            del self._waiting[nonce]
            waiting.answer.cancel()
        return None

    # ------------------------------------------------------------------------------ packets

    def _send(self, data: bytes, endpoint: tuple[str, int]) -> None:
        with suppress(OSError):  # as lost on the way
            self._socket.sendto(data, endpoint)

    def _on_datagrams(self) -> None:
        for _ in range(64):
            try:
                data, source = self._socket.recvfrom(65535)
            except BlockingIOError:
                return
            except OSError:
                continue  # an ICMP error of something sent before
            tunnel = self._tunnels.get(source)
            message = None if tunnel is None else tunnel.hear(data)
            if tunnel is not None and message is not None:
                self._take(tunnel, message)

    def _take(self, tunnel: Tunnel, data: bytes) -> None:
        with suppress(CodecError):
            message = decode(data)
            if isinstance(message, MapReply):
                self._answer(message.nonce, tunnel, message)
            elif isinstance(message, MapNotify) and is_push(message.nonce):
                tunnel.say(encode(MapNotifyAck(message.nonce, message.records)))
                self._told(tunnel, message)
            elif isinstance(message, MapNotify):
                # What is in force is the answer to each older register as well.
                for number in [n for n in self._waiting if n <= message.nonce]:
                    self._answer(number, tunnel, message)

    def _told(self, tunnel: Tunnel, message: MapNotify) -> None:
        time, server = now(), tunnel.server.name
        for record in message.records:
            given = {"key": str(record.eid.prefix.network_address), "result": shown([record])}
            self._pushed(
                Call.model_validate(
                    {"who": self.identity.name, "op": Op.PUSHED, "outcome": Outcome.OK}
                    | {"begun": time, "ended": time, "server": server}
                    | given
                )
            )

    def _answer(self, nonce: int, tunnel: Tunnel, message: MapReply | MapNotify) -> None:
        waiting = self._waiting.get(nonce)
        if waiting is not None and not waiting.answer.done():
            waiting.answer.set_result((tunnel.server.name, message))


def is_push(nonce: int) -> bool:
    """Tell whether a notify is news that was pushed (any 64 bits) and no answer to a register."""
    return nonce >= _ANSWERS


def shown(records: Sequence[Record]) -> int:
    """Return the number of the register that an answer shows, 0 for none."""
    ports = [one.port for record in records for one in record.locators if not one.key_revoked]
    return max(ports, default=0)
