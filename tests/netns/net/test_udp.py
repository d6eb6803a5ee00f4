"""A socket bound to an interface is deaf to the others.

[n: veth 192.0.2.1, 2001:db8:6::1; inner interface 10.5.0.1, fd55::1] ---- [o: neighbour]
"""

import asyncio
import ipaddress

import pytest

from support.netns import netbed
from wgmap.udp import SocketAddress, UdpEndpoint, open_socket

pytestmark = pytest.mark.netns

SEND = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
with socket.socket(family, socket.SOCK_DGRAM) as sender:
    sender.sendto(sys.argv[3].encode(), (sys.argv[1], int(sys.argv[2])))
"""


@pytest.mark.parametrize(
    ("inner", "underlay", "neighbour"),
    [
        ("10.5.0.1/24", "192.0.2.1/24", "192.0.2.2/24"),
        ("fd55::1/64", "2001:db8:6::1/64", "2001:db8:6::2/64"),
    ],
)
async def test_a_neighbour_cannot_reach_it(inner: str, underlay: str, neighbour: str) -> None:
    address = ipaddress.ip_interface(inner).ip
    heard: list[bytes] = []
    came = asyncio.Event()

    def take(data: bytes, source: SocketAddress) -> None:
        heard.append(data)
        came.set()

    with netbed("wg") as bed:
        here, other = bed.namespace("n"), bed.namespace("o")
        port, _ = bed.veth(here, other, [underlay], [neighbour])
        dummy = bed.name("i")
        here.ip("link", "add", dummy, "type", "bridge")
        here.ip("addr", "add", inner, "dev", dummy, *(["nodad"] if ":" in inner else []))
        here.ip("link", "set", dummy, "up")
        other.ip("route", "add", str(address), "via", str(ipaddress.ip_interface(underlay).ip))
        with here.entered():
            bound = UdpEndpoint(open_socket(address, 4342, dummy), take)
            open_one = UdpEndpoint(open_socket(address, 4344), take)
            outer = UdpEndpoint(open_socket(address, 4345, port), take)
        for endpoint in (bound, open_one, outer):
            endpoint.start()
        # In this order: when the last has come, the first would have come before it.
        for udp_port, text in ((4342, "forged"), (4344, "open"), (4345, "outer")):
            other.run("python3", "-c", SEND, str(address), str(udp_port), text)
        async with asyncio.timeout(5):
            while len(heard) < 2:
                came.clear()
                await came.wait()
        assert heard == [b"open", b"outer"]
        assert bound.counters.received == 0
        for endpoint in (bound, open_one, outer):
            endpoint.close()
