"""``python -m channel.ask OWN SERVER EID ROUNDS``: one lookup each way a round, in random order.

Prints one JSON object a round: way -> milliseconds from the question to the answer in hand.
"""

import asyncio
import ipaddress
import json
import random
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import grpc
import lookup_pb2
import lookup_pb2_grpc

from channel.serve import GRPC_PORT, HTTP_PORT
from wgmap.addresses import host_prefix
from wgmap.lisp.codec import decode, encode
from wgmap.lisp.messages import LISP_PORT, Eid, MapReply, MapRequest, RequestRecord

LATE_S = 5.0
WARM_UP = 5  # rounds that do not count
PAUSE_S = 0.02  # between two lookups: the tunnel and the loop are at rest
Way = Callable[[], Awaitable[None]]


class Ways:
    """One agent's lookups of one EID at one server."""

    def __init__(self, own: str, server: str, eid: str) -> None:
        self._own, self._server, self._text = ipaddress.ip_address(own), server, eid
        self._eid = ipaddress.ip_address(eid)
        self._socket = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind((own, 0))
        self._socket.connect((server, LISP_PORT))
        self._channel: Any = grpc.aio.insecure_channel(self._grpc_target())
        self._session = aiohttp.ClientSession()

    async def close(self) -> None:
        await self._channel.close()
        await self._session.close()
        self._socket.close()

    def all(self) -> dict[str, Way]:
        """Return the ways by name; "new" ones open a connection for each lookup."""
        return {
            "lisp": self.lisp,
            "grpc": self.grpc,
            "grpc, new": self.grpc_new,
            "http": self.http,
            "http, new": self.http_new,
        }

    async def lisp(self) -> None:
        loop = asyncio.get_running_loop()
        nonce = random.SystemRandom().getrandbits(64)
        record = RequestRecord(Eid(host_prefix(self._eid)))
        await loop.sock_sendall(self._socket, encode(MapRequest(nonce, (self._own,), (record,))))
        while True:
            reply = decode(await loop.sock_recv(self._socket, 4096))
            if isinstance(reply, MapReply) and reply.nonce == nonce:
                assert reply.records[0].locators, "nothing is known of it"
                return

    def _grpc_target(self) -> str:
        return f"ipv6:[{self._server}]:{GRPC_PORT}"

    async def grpc(self) -> None:
        await self._grpc_by(self._channel)

    async def grpc_new(self) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]  # or the kept connection would serve
        async with grpc.aio.insecure_channel(self._grpc_target(), options) as channel:
            await self._grpc_by(channel)

    async def _grpc_by(self, channel: Any) -> None:
        stub = lookup_pb2_grpc.MapStub(channel)
        found = await stub.Lookup(lookup_pb2.Question(eid=self._eid.packed), timeout=LATE_S)
        assert found.locators, "nothing is known of it"

    async def http(self) -> None:
        await self._http_by(self._session)

    async def http_new(self) -> None:
        async with aiohttp.ClientSession() as session:
            await self._http_by(session)

    async def _http_by(self, session: aiohttp.ClientSession) -> None:
        url = f"http://[{self._server}]:{HTTP_PORT}/lookup/{self._text}"
        async with session.get(url) as response:
            assert (await response.json())["locators"], "nothing is known of it"


async def main(own: str, server: str, eid: str, rounds: int) -> None:
    """Measure."""
    ways = Ways(own, server, eid)
    order = random.Random(1)  # noqa: S311  # an order
    try:
        for number in range(-WARM_UP, rounds):
            names = list(ways.all())
            order.shuffle(names)
            took = {name: await _timed(ways.all()[name]) for name in names}
            if number >= 0:
                print(json.dumps(took), flush=True)
    finally:
        await ways.close()


async def _timed(way: Way) -> float:
    await asyncio.sleep(PAUSE_S)
    began = time.perf_counter()
    async with asyncio.timeout(LATE_S):
        await way()
    return 1e3 * (time.perf_counter() - began)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
