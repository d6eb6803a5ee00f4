"""The UDP socket to the map servers, inside the control tunnel and nowhere else.

It is bound to the own control address *and* to the interface: Linux's weak host model would
otherwise take a datagram for that address from any interface, and the source address in the
tunnel is what proves who a server is.
"""

import errno
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Self

from wgmap import udp
from wgmap.lisp.messages import LISP_PORT
from wgmap_agent.runner.lost import InterfaceLostError

RECEIVE_BUFFER = 1 << 20  # bytes; pushes come in bursts, what does not fit is sent again


@dataclass(frozen=True, slots=True)
class Datagram:
    """What a map server sent."""

    source: IPv6Address
    data: bytes


class ControlSocket:
    """Sends to servers by their names and takes datagrams from servers only."""

    def __init__(
        self, interface: str, address: IPv6Address, servers: Mapping[str, IPv6Address]
    ) -> None:
        """Bind to ``address``, port 4342, on ``interface``; raises NetworkError."""
        self._servers = dict(servers)
        self._known = frozenset(servers.values())
        self.refused = 0  # datagrams that came from anyone else
        self._socket = udp.open_socket(address, LISP_PORT, interface, RECEIVE_BUFFER)

    def use(self, servers: Mapping[str, IPv6Address]) -> None:
        """Know these servers from now on, and no others."""
        self._servers = dict(servers)
        self._known = frozenset(servers.values())

    def fileno(self) -> int:
        """Return the descriptor, readable when datagrams wait."""
        return self._socket.fileno()

    def send(self, server: str, datagram: bytes) -> None:
        """Send one datagram to port 4342 of a server; raises OSError, and never blocks."""
        address = self._servers.get(server)
        if address is None:
            raise OSError(errno.EDESTADDRREQ, f"no server {server}")
        self._socket.sendto(datagram, (str(address), LISP_PORT))

    def read(self, limit: int) -> list[Datagram]:
        """Take at most ``limit`` datagrams that wait; raises InterfaceLostError."""
        taken: list[Datagram] = []
        for _ in range(limit):
            try:
                data, sender = self._socket.recvfrom(udp.MAX_DATAGRAM)
            except BlockingIOError:
                break
            except ConnectionError:
                continue  # an ICMP error about a datagram sent before; the engine's timers see it
            except OSError as error:
                raise InterfaceLostError(f"the control socket: {error.strerror}") from error
            source = IPv6Address(sender[0].partition("%")[0])
            if source in self._known and sender[1] == LISP_PORT:
                taken.append(Datagram(source, data))
            else:
                self.refused += 1
        return taken

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
