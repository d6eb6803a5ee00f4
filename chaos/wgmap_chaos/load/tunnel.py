"""One control tunnel of a light client: it stands when something is to be sent, or is made anew."""

import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Address

from wgmap.clock import now
from wgmap.lisp.messages import LISP_PORT
from wgmap.wg.keys import PrivateKey, PublicKey
from wgmap_chaos.load import inner
from wgmap_chaos.load.noise import INITIATION, RESPONSE, Handshake, NoiseError, Session, answer

REKEY_S = 110.0  # a session is good for 120 s at most (section 6.2)
SILENT_S = 1.0  # so long after something was sent and nothing came: the server may have rebooted
AGAIN_S = 0.5  # between two initiations
HELD = 8  # packets that wait for the handshake; the oldest goes


@dataclass(frozen=True, slots=True)
class ServerPlace:
    """Where a map server is, and who it is."""

    name: str
    endpoint: tuple[str, int]
    key: PublicKey
    control: IPv6Address


class Tunnel:
    """To one server; ``send`` is given the datagrams for its endpoint."""

    def __init__(
        self,
        own: PrivateKey,
        address: IPv6Address,
        server: ServerPlace,
        send: Callable[[bytes, tuple[str, int]], None],
    ) -> None:
        self.server = server
        self._own, self._address, self._send = own, address, send
        self._session: Session | None = None
        self._handshake: Handshake | None = None
        self._since = self._initiated = float("-inf")
        self._unanswered: float | None = None  # since when something was sent and nothing came
        self._held: deque[bytes] = deque(maxlen=HELD)

    def say(self, data: bytes) -> None:
        """Send a LISP message, after a handshake where one is due."""
        packet = inner.datagram(self._address, self.server.control, (LISP_PORT, LISP_PORT), data)
        if self._session is None or self._is_due():
            self._held.append(packet)
            self._initiate()
            return
        self._out(packet)

    def keep_alive(self) -> None:
        """Send an empty packet where the tunnel stands, as WireGuard's keepalive does."""
        if self._session is not None:
            self._send(self._session.seal(b""), self.server.endpoint)

    def hear(self, datagram: bytes) -> bytes | None:
        """Take a datagram from the server's endpoint; return the LISP message in it, if any."""
        try:
            if datagram[:1] == bytes([RESPONSE]):
                self._finish(datagram)
                return None
            if datagram[:1] == bytes([INITIATION]):
                self._answer(datagram)
                return None
            if self._session is None:
                return None
            packet = self._session.open(datagram)
        except NoiseError:
            return None
        self._unanswered = None
        found = inner.payload(packet)
        return found[1] if found is not None and found[0] == LISP_PORT else None

    def _is_due(self) -> bool:
        time = now()
        silent = self._unanswered is not None and time - self._unanswered > SILENT_S
        return silent or time - self._since > REKEY_S

    def _initiate(self) -> None:
        if now() - self._initiated < AGAIN_S:
            return
        self._initiated = now()
        self._handshake = Handshake(self._own, self.server.key, self._initiated)
        self._send(self._handshake.message, self.server.endpoint)

    def _finish(self, datagram: bytes) -> None:
        if self._handshake is None:
            return
        self._stands(self._handshake.finish(datagram))
        while self._held:
            self._out(self._held.popleft())

    def _answer(self, initiation: bytes) -> None:
        """Take the server's own handshake: it has rebooted, or has something to say after long."""
        answered = answer(self._own, initiation, int.from_bytes(os.urandom(4)))
        self._stands(answered.session)
        self._send(answered.response, self.server.endpoint)

    def _stands(self, session: Session) -> None:
        self._session = session
        self._handshake, self._since, self._unanswered = None, now(), None

    def _out(self, packet: bytes) -> None:
        assert self._session is not None, "asked before"
        if self._unanswered is None:
            self._unanswered = now()
        self._send(self._session.seal(packet), self.server.endpoint)
