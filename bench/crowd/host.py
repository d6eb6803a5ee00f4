"""What one host of a crowd says to the map servers, and how it answers in data tunnels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address

from crowd.members import PORT, Member
from wgmap.addresses import Endpoint, host_prefix
from wgmap.lisp import codec
from wgmap.lisp.mark import NOTHING_HELD, OF_REGISTER, UNKNOWN, Mark, marked
from wgmap.lisp.messages import (
    CodecError,
    Eid,
    Locator,
    MapNotify,
    MapRegister,
    MapReply,
    Record,
)
from wgmap_agent.engine.questions import Questions
from wgmap_agent.engine.types import Identity, ServerInfo
from wgmap_chaos.lab.topology import OVERLAY
from wgmap_chaos.load.tunnel import ServerPlace, Tunnel

NONCE = 1  # of the first register; one that is repeated is repeated to the byte
TTL_MIN = 60

Send = Callable[[bytes, bytes, tuple[str, int]], None]  # where from (packed), what, where to


@dataclass
class Counts:
    """What all hosts said and heard."""

    registers: int = 0
    registered: int = 0  # answers to registers
    probes: int = 0
    answers: int = 0  # to probes
    pushes: int = 0  # and news; each is acknowledged
    keepalives: int = 0


class Host:
    """One member: its control tunnels, and what it repeats in them."""

    def __init__(
        self, member: Member, servers: Sequence[ServerPlace], send: Send, counts: Counts
    ) -> None:
        self.member, self._counts = member, counts
        self._place = member.place
        self.acknowledged = False
        self.listener: Listener | None = None  # told of answers, to the last register alone
        self._nonce = NONCE
        self._marks = {one.name: Mark(UNKNOWN, NOTHING_HELD) for one in servers}

        def out(data: bytes, endpoint: tuple[str, int]) -> None:
            send(self._place.packed, data, endpoint)

        self.tunnels = {
            one.endpoint: Tunnel(member.control_key, member.control, one, out) for one in servers
        }
        tunnels = list(self.tunnels.values())
        self.preferred = tunnels[member.number % len(tunnels)]  # a fleet spreads
        self.heard_at = dict.fromkeys(tunnels, float("-inf"))
        self.probe_at = dict.fromkeys(tunnels, float("inf"))
        self._questions = Questions(_identity(member, servers))
        self._register = codec.encode(_register(member, self._place))

    def move(self) -> None:
        """Be at the other place from now on; the next register says so."""
        self._place = next(one for one in self.member.places if one != self._place)
        self._register = codec.encode(_register(self.member, self._place))

    def register(self, tunnel: Tunnel, *, fresh: bool = False) -> None:
        """Register at a server: in the same words as before, or as a change."""
        self._counts.registers += 1
        if fresh:
            self._nonce += 1
        mark = self._marks[tunnel.server.name]._replace(since=OF_REGISTER)
        data = self._register
        tunnel.say(marked(data[:4] + self._nonce.to_bytes(8) + data[12:], mark))

    def tunnel_to(self, server: str) -> Tunnel:
        """Return the tunnel to a server; raises StopIteration where there is none."""
        return next(one for one in self.tunnels.values() if one.server.name == server)

    def probe(self, tunnel: Tunnel, nonce: int) -> None:
        """Ask a server for our own prefix, as an agent does that has not heard it for long."""
        self._counts.probes += 1
        question = self._questions.write(host_prefix(self.member.eid), nonce)
        tunnel.say(marked(question, self._marks[tunnel.server.name]))

    def keep_alive(self, tunnel: Tunnel) -> None:
        """Send WireGuard's passive keepalive."""
        self._counts.keepalives += 1
        tunnel.keep_alive()

    def hear(self, tunnel: Tunnel, datagram: bytes, now: float) -> bool:
        """Take a datagram of a server in; True where it held a message."""
        data = tunnel.hear(datagram)
        if data is None:
            return False
        self.heard_at[tunnel] = now
        try:
            message = codec.decode(data)
        except CodecError:
            return False
        if isinstance(message, MapReply):
            self._counts.answers += 1
            self._tell(tunnel, message)
        elif isinstance(message, MapNotify):
            self._notified(tunnel, message, data)
        return True

    def _notified(self, tunnel: Tunnel, message: MapNotify, data: bytes) -> None:
        mark = None if message.xtr is None else Mark.of(message.xtr)
        if mark is not None and mark.since == OF_REGISTER:
            self._counts.registered += 1
            if message.nonce == self._nonce:
                self.acknowledged = True
                self._tell(tunnel, message)
            return
        self._counts.pushes += 1
        name = tunnel.server.name
        ack = codec.acknowledgement(data)
        if mark is not None:
            self._marks[name] = Mark(mark.incarnation, mark.number)
            ack = marked(ack, self._marks[name])
        tunnel.say(ack)

    def _tell(self, tunnel: Tunnel, message: MapReply | MapNotify) -> None:
        if self.listener is not None:
            self.listener(self, tunnel, message)


Listener = Callable[[Host, Tunnel, MapReply | MapNotify], None]


def _register(member: Member, place: IPv4Address) -> MapRegister:
    locator = Locator(place, PORT, member.data_key.public, local=True)
    record = Record(Eid(host_prefix(member.eid)), (locator,), TTL_MIN)
    return MapRegister(NONCE, (record,), xtr=Mark(UNKNOWN, 0).xtr())


def _identity(member: Member, servers: Sequence[ServerPlace]) -> Identity:
    return Identity(
        name=member.name,
        instance=0,
        prefixes=(host_prefix(member.eid),),
        overlay=OVERLAY,
        control_address=member.control,
        data_key=member.data_key.public,
        data_port=PORT,
        servers=tuple(
            ServerInfo(one.name, one.key, _endpoint(one), one.control) for one in servers
        ),
        ttl_min=TTL_MIN,
        idle_s=900.0,
    )


def _endpoint(server: ServerPlace) -> Endpoint:
    address, port = server.endpoint
    return Endpoint(ip_address(address), port)
