"""The UDP socket to the map servers, inside the control tunnel and nowhere else.

It is bound to the own control address *and* to the interface: Linux's weak host model would
otherwise take a datagram for that address from any interface, and the source address in the
tunnel is what proves who a server is.
"""

import errno
import socket
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
        self.use(servers)
        self.refused = 0  # datagrams that came from anyone else
        self._socket = udp.open_socket(address, LISP_PORT, interface, RECEIVE_BUFFER)

    def use(self, servers: Mapping[str, IPv6Address]) -> None:
        """Know these servers from now on, and no others."""
        # As the kernel writes them: reading and writing addresses takes longer than the rest.
        texts = {
            name: socket.inet_ntop(socket.AF_INET6, one.packed) for name, one in servers.items()
        }
        self._destinations = {name: (text, LISP_PORT) for name, text in texts.items()}
        self._known = {texts[name]: address for name, address in servers.items()}

    def fileno(self) -> int:
        """Return the descriptor, readable when datagrams wait."""
        return self._socket.fileno()

    def send(self, server: str, datagram: bytes) -> None:
        """Send one datagram to port 4342 of a server; raises OSError, and never blocks."""
        destination = self._destinations.get(server)
        if destination is None:
            raise OSError(errno.EDESTADDRREQ, f"no server {server}")
        self._socket.sendto(datagram, destination)

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
            source = self._known.get(sender[0])
            if source is not None and sender[1] == LISP_PORT:
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
