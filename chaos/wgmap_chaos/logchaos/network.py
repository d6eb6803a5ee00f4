"""Namespaces for the servers, one bridge between them, and cuts.

namespace of the bridge              namespace of server N
+-----------------------+           +----------------------+
|  bridge --- veth -------------------- veth 10.97.0.N/24  |
+-----------------------+           |  nft: who is not heard
                                    +----------------------+
"""

import asyncio
import secrets
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from wgmap_chaos.faults import cuts
from wgmap_chaos.lab import removal, shell

Cut = tuple[int, int]  # what the first one sends does not reach the second one
_TABLE = "chaos"


class Network:
    """Servers are numbered from 1."""

    def __init__(self, count: int) -> None:
        """Only choose names; see ``network``."""
        self.id = secrets.token_hex(3)
        self.numbers = tuple(range(1, count + 1))
        self._bridge = f"wgmap-log-{self.id}-br"

    def netns(self, number: int) -> str:
        """Return the name of a server's namespace."""
        return f"wgmap-log-{self.id}-{number}"

    def device(self, number: int) -> str:
        """Return the name of a server's interface."""
        return f"{self.id}-s{number}"

    @staticmethod
    def address(number: int) -> str:
        """Return a server's address."""
        return f"10.97.0.{number}"

    def make(self) -> None:
        """Make everything; raises LabError."""
        _ip("netns", "add", self._bridge)
        _ip("-n", self._bridge, "link", "add", "name", "bridge", "type", "bridge")
        _ip("-n", self._bridge, "link", "set", "dev", "bridge", "up")
        for number in self.numbers:
            self._make_place(number)

    def _make_place(self, number: int) -> None:
        netns, device, port = self.netns(number), self.device(number), f"{self.id}-b{number}"
        _ip("netns", "add", netns)
        _ip(
            *("-n", netns, "link", "add", device, "type", "veth"),
            *("peer", "name", port, "netns", self._bridge),
        )
        _ip("-n", self._bridge, "link", "set", "dev", port, "master", "bridge", "up")
        _ip("-n", netns, "address", "add", f"{self.address(number)}/24", "dev", device)
        _ip("-n", netns, "link", "set", device, "up")
        _ip("-n", netns, "link", "set", "lo", "up")

    def remove(self) -> None:
        """Remove whatever exists of it."""
        for name in (*map(self.netns, self.numbers), self._bridge):
            removal.delete_namespace(name)

    async def cut(self, wanted: Iterable[Cut]) -> None:
        """Cut these and heal all others; raises LabError."""
        unheard: dict[int, list[int]] = defaultdict(list)
        for sender, receiver in wanted:
            unheard[receiver].append(sender)
        await asyncio.gather(*(self._set(each, unheard[each]) for each in self.numbers))

    async def _set(self, number: int, unheard: list[int]) -> None:
        addresses = {str(each): [self.address(each)] for each in unheard}
        await cuts.deafen(self.netns(number), _TABLE, addresses)

    async def dropped(self, number: int) -> dict[int, int]:
        """Return how many packets a server has not heard, by their sender; {} without a cut."""
        counts = await cuts.dropped(self.netns(number), _TABLE)
        return {int(name): count for name, count in counts.items()}


@contextmanager
def network(count: int) -> Iterator[Network]:
    """Make a network and remove it at the end, also after a failure; raises LabError."""
    made = Network(count)
    try:
        made.make()
        yield made
    finally:
        made.remove()


def _ip(*argv: str) -> None:
    shell.run(["ip", *argv])
