"""What it takes to know where the peers of a device are: readings, looks, and who waits for them.

One device of wireguard-go with many peers that all have an endpoint. *reading* and *look* are what
they cost, once, the process that carries the device and this one apart. Then so many ask at a time
whether a peer comes from an address where it is not, as a map server asks for each register of a
peer that has moved: a no never comes from a look that began before. Wants root and a network
namespace of its own. Prints Markdown, and writes CSV and PNG.
"""

import asyncio
import os
import random
import secrets
import sys
from argparse import Namespace
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network, ip_address
from pathlib import Path
from statistics import median
from typing import Any

import measured
import results
from matplotlib.figure import Figure
from measured import Notes, Value, pick
from results import quantile
from usage import Groups, Reading

from wgmap.addresses import Endpoint, IPAddress, control_address, host_prefix
from wgmap.clock import now
from wgmap.wg.device import DeviceConfig, PeerConfig
from wgmap.wg.keys import PrivateKey, PublicKey
from wgmap.wg.userspace import UserspaceBackend, UserspaceDevice
from wgmap_cluster.fsm.rows import PeerRow
from wgmap_cluster.interfaces.control import ControlPeers
from wgmap_cluster.interfaces.plan import BATCH

CONTROL = IPv6Network("fd77:676d:6170::/64")
PLACES = int(ip_address("10.0.0.0"))
ELSEWHERE: IPAddress = ip_address("192.0.2.99")
ONCE = 9  # readings and looks, of which the median is taken
SELDOM_S = 0.5  # between two who ask seldom
SELDOM, ASKING = "seldom", (1, 64)


@dataclass(kw_only=True)
class Bench(Notes):
    """A device with peers, as a map server has it."""

    device: UserspaceDevice
    addresses: Sequence[IPv6Address]
    seconds: float

    @property
    def groups(self) -> Groups:
        """Return the processes that are watched."""
        return {"wireguard-go": (self.device.carrier_pid,), "replica": (os.getpid(),)}

    async def once(self, phase: str, what: Callable[[], Awaitable[Any]]) -> None:
        """Do something some times, and note what it takes whom."""
        walls: list[float] = []
        used: dict[str, list[float]] = {name: [] for name in self.groups}
        for _ in range(ONCE):
            before = Reading.take(self.groups)
            await what()
            after = Reading.take(self.groups)
            walls.append(after.at - before.at)
            for name, found in used.items():
                found.append(after.cpu_s(before, name))
        peers = len(self.addresses)
        self.note(phase, peers, "all", "took", median(walls) * 1e3, "ms")
        for name, found in used.items():
            self.note(phase, peers, name, "cpu each", median(found) * 1e3, "ms")

    async def ask(self, phase: str, them: ControlPeers, window: int, pause_s: float = 0.0) -> None:
        """Have so many ask at a time, each again once it is answered."""
        took: list[float] = []
        end = now() + self.seconds

        async def one() -> None:
            while (began := now()) < end:
                assert not await them.is_outer(random.choice(self.addresses), ELSEWHERE)  # noqa: S311
                took.append((now() - began) * 1e3)
                await asyncio.sleep(pause_s)

        before = Reading.take(self.groups)
        await asyncio.gather(*(one() for _ in range(window)))
        after, peers = Reading.take(self.groups), len(self.addresses)
        for part in (0.5, 0.99, 1.0):
            figure = f"p{100 * part:g}"
            self.note(phase, peers, "all", figure, quantile(took, part), "ms", window=window)
        rate = len(took) / (after.at - before.at)
        self.note(phase, peers, "all", "rate", rate, "1/s", window=window)
        for name in self.groups:
            share = 100 * after.share(before, name)
            self.note(phase, peers, name, "cpu", share, "%", window=window)


@asynccontextmanager
async def ground(peers: int, seconds: float) -> AsyncIterator[tuple[Bench, ControlPeers]]:
    """Make a device with peers, and what keeps them."""
    backend, name = UserspaceBackend(), f"wgl{secrets.token_hex(3)}"
    device = await backend.open(name)
    keeping: asyncio.Task[None] | None = None
    try:
        await device.configure(DeviceConfig(PrivateKey.generate(), 0))
        keys = [PublicKey(secrets.token_bytes(32)) for _ in range(peers)]
        addresses = [control_address(CONTROL, key) for key in keys]
        for start in range(0, peers, BATCH):
            chosen = range(start, min(peers, start + BATCH))
            batch = tuple(
                PeerConfig(keys[n], _endpoint(n), (host_prefix(addresses[n]),)) for n in chosen
            )
            await device.configure(DeviceConfig(peers=batch))
        them = ControlPeers(device)
        keeping = asyncio.create_task(them.run())
        rows = zip(keys, addresses, strict=True)
        them.replace({str(key): PeerRow(bytes(key), at.packed, 0, ()) for key, at in rows})
        await them.settled()
        yield Bench(device=device, addresses=addresses, seconds=seconds), them
    finally:
        if keeping is not None:
            keeping.cancel()
        await device.close()
        await backend.remove(name)


def _endpoint(number: int) -> Endpoint:
    return Endpoint(ip_address(PLACES + number), 51822)


async def measure(options: Namespace) -> list[Value]:
    """Measure devices of all sizes."""
    found: list[Value] = []
    for peers in sorted(options.peers):
        async with ground(peers, options.seconds) as (bench, them):
            await bench.once("reading", bench.device.read)
            await bench.once("look", bench.device.look)
            await bench.ask(SELDOM, them, 1, SELDOM_S)
            for window in ASKING:
                await bench.ask("moves", them, window)
            found += bench.values
    return found


def tables(values: Sequence[Value]) -> str:
    """Write what a reading and a look cost, and how long who has moved waits."""
    lines = ["| peers | once | takes | wireguard-go | replica |", "|---|---|---|---|---|"]
    for one in pick(values, figure="took"):
        of: dict[str, Any] = {"phase": one.phase, "peers": one.peers, "figure": "cpu each"}
        costs = (measured.only(values, **of, process=who) for who in ("wireguard-go", "replica"))
        cells = " | ".join(f"{cost:.1f} ms" for cost in (one.value, *costs))
        lines.append(f"| {one.peers:,} | {one.phase} | {cells} |")
    lines += ["", "| peers | they ask | answered after: p50 | p99 | longest | a second "
              "| wireguard-go | replica |", "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for one in pick(values, figure="rate"):
        of = {"phase": one.phase, "peers": one.peers, "window": one.window}
        waits = (measured.only(values, **of, figure=part) for part in ("p50", "p99", "p100"))
        cpu = (measured.only(values, **of, figure="cpu", process=who)
               for who in ("wireguard-go", "replica"))  # fmt: skip
        cells = " | ".join((*(f"{wait:.0f} ms" for wait in waits), f"{one.value:,.0f}",
                            *(f"{share:.0f} %" for share in cpu)))  # fmt: skip
        lines.append(f"| {one.peers:,} | {_who(one)} | {cells} |")
    return "\n".join(lines)


def _who(one: Value) -> str:
    return f"one each {SELDOM_S:g} s" if one.phase == SELDOM else f"{one.window} at a time"


def draw(path: Path, values: Sequence[Value]) -> None:
    """Write costs and waits over the number of peers as PNG."""
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    cost, wait = figure.subplots(1, 2)
    for phase in ("reading", "look"):
        for who in ("wireguard-go", "replica"):
            found = pick(values, phase=phase, process=who, figure="cpu each")
            at = [one.peers for one in found], [one.value for one in found]
            cost.plot(*at, "o-" if phase == "look" else "s--", label=f"{phase}, {who}")
    for phase, window in ((SELDOM, 1), *(("moves", window) for window in ASKING)):
        found = pick(values, phase=phase, window=window, figure="p50")
        at = [one.peers for one in found], [one.value for one in found]
        wait.plot(*at, "o-", label=_who(found[0]))
    titles = ("processor time of one, ms", "who has moved waits, median, ms")
    for axes, title in zip((cost, wait), titles, strict=True):
        axes.set_title(title, fontsize="medium")
        axes.set_xlabel("peers of the device")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.grid(visible=True, which="both", alpha=0.2)
        axes.legend(fontsize="small")
    figure.savefig(path, dpi=100)


def main() -> int:
    """Measure, and write the results."""
    parser = results.parser(__doc__, "looks")
    parser.add_argument("--peers", type=int, nargs="+", default=[10, 1000, 10_000])
    parser.add_argument("--seconds", type=float, default=4.0, help="that they ask")
    options = parser.parse_args()
    values = asyncio.run(measure(options))
    results.publish(options, tables(values), values, measured.write, draw)
    return 0


if __name__ == "__main__":
    sys.exit(main())
