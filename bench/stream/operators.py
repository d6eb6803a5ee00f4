"""Operators and their programs, all at once, at the admin API of one server, until told to end.

``python -m stream.operators SOCKET NUMBER`` (the number makes names that were not used before). At
the end of its input it prints how many of each it had answered, as JSON.
"""

import asyncio
import ipaddress
import itertools
import json
import random
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from http import HTTPStatus

import aiohttp

FOLLOWING = 3  # clients that follow the events
ENROL_S = 0.1  # between two new peers
IMPORT_S = 1.0  # between two batches
IMPORTED = 100  # peers of a batch
LOOK_S = 0.5  # between two looks of what watches the server
_MOST = 1 << 14  # peers that one run enrols
_EIDS = int(ipaddress.ip_address("10.128.0.0"))
_CONTROL = int(ipaddress.ip_address("127.128.0.0"))
Do = Callable[[], Awaitable[None]]


class Operators:
    """Everything that is asked for."""

    def __init__(self, session: aiohttp.ClientSession, number: int) -> None:
        self._session = session
        self._random = random.Random(number)  # noqa: S311  # what is searched for
        self._peers = new_peers(number)
        self.done: Counter[str] = Counter()

    def parts(self) -> list[Awaitable[None]]:
        """Return what goes on beside each other."""
        return [
            _again(self.whole_list),
            _again(self.page),
            _again(self.enrol, ENROL_S),
            _again(self.import_batch, IMPORT_S),
            _again(self.look, LOOK_S),
            *(self.follow() for _ in range(FOLLOWING)),
        ]

    async def whole_list(self) -> None:
        """Fetch all peers."""
        await self._get("lists", "/v1/peers")

    async def page(self) -> None:
        """Search as somebody does who types."""
        number = self._random.randrange(100_000)
        await self._get("pages", f"/v1/peers?search=p{number % 1000}&limit=100")
        await self._get("pages", f"/v1/mappings?search=10.{number >> 16}.{number >> 8 & 255}.0/24")

    async def look(self) -> None:
        """Ask what the page in the browser and monitoring ask for."""
        for path in ("/v1/status", "/v1/counters", "/v1/contacts", "/v1/history"):
            await self._get("looks", path)

    async def enrol(self) -> None:
        """Enrol one peer."""
        await self._post("enrolled", 1, "/v1/peers", next(self._peers))

    async def import_batch(self) -> None:
        """Enrol a batch."""
        peers = list(itertools.islice(self._peers, IMPORTED))
        await self._post("enrolled", len(peers), "/v1/imports", {"peers": peers})

    async def follow(self) -> None:
        """Follow the events; who is dropped comes again."""
        while True:
            async with self._session.get("/v1/events?follow=1") as response:
                async for line in response.content:
                    self.done["events"] += len(line) > 1

    async def _get(self, what: str, path: str) -> None:
        async with self._session.get(path) as response:
            async for _ in response.content.iter_any():
                pass
            self.done[what if response.status == HTTPStatus.OK else "refused"] += 1

    async def _post(self, what: str, count: int, path: str, body: object) -> None:
        async with self._session.post(path, json=body) as response:
            await response.read()
            ok = response.status in (HTTPStatus.OK, HTTPStatus.CREATED)
            self.done[what if ok else "refused"] += count if ok else 1


async def _again(do: Do, every_s: float = 0.0) -> None:
    while True:
        await do()
        await asyncio.sleep(every_s)


def new_peers(number: int) -> Iterator[dict[str, object]]:
    """Yield peers that nobody enrolled before, for each number others."""
    for peer in range(number * _MOST, (number + 1) * _MOST):
        prefix, address = (str(ipaddress.ip_address(first + peer)) for first in (_EIDS, _CONTROL))
        yield {"name": f"new{peer}", "prefixes": [prefix], "control_address": address}


async def _main(socket: str, number: int) -> None:
    connector = aiohttp.UnixConnector(socket, limit=0)
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession("http://server", connector=connector, timeout=timeout) as one:
        operators = Operators(one, number)
        tasks = [asyncio.ensure_future(part) for part in operators.parts()]
        ended = asyncio.ensure_future(asyncio.to_thread(sys.stdin.read))
        await asyncio.wait([ended, *tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done():
                task.result()
            task.cancel()
        print(json.dumps(operators.done))


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], int(sys.argv[2])))
