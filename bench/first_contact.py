"""First contacts beside the floor: how long until the first reply, and where the time goes.

A contact is cold: neither side knows the other. The floor is the same with everything installed
beforehand, so that only WireGuard's handshake is left. Both run in turn, over one underlay, with
one priority above other work of the machine. Wants root. Writes CSV, PNG and Markdown.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import results
from contact import report, steps
from contact.bound import Bound
from contact.capture import Capture
from contact.floor import Floor
from contact.nebula import Nebula, is_there
from contact.probe import Prober, Reply, prober
from contact.report import BOUND, FLOOR, NEBULA, OURS, Row

from wgmap.addresses import IPAddress
from wgmap_agent.runner import statussocket
from wgmap_chaos.lab import inventory
from wgmap_chaos.lab.inventory import AgentEntry, Inventory
from wgmap_chaos.priority import favour, of_lab
from wgmap_chaos.programs import run

DATA_PORT = 51820
SETTLE_S = 0.05  # beside four delays: what a reset leads to is over
TRIES = 3  # a contact that was not cold (a late push had told the other side) is made again
WARM_UP = 4  # contacts of each system that do not count


class Bench:
    """One lab, and everything that is compared in it."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self._directory = directory
        self.lab: Inventory = inventory.read(directory / "lab.json")
        self._agents = (self.lab.agents[0], self.lab.agents[1])
        self._probers: dict[str, Prober] = {
            agent.name: stack.enter_context(prober(agent.netns)) for agent in self._agents
        }
        self._capture = stack.enter_context(Capture(steps.taps(self.lab), {DATA_PORT}))
        self._delay_s = 0.0
        self.floor = Floor()
        self.bound = Bound()
        self.nebula: Nebula | None = None
        self.rows: list[Row] = []

    async def open(self, *, nebula: bool) -> None:
        """Start what the lab does not have, and put all of it on one priority."""
        await self.floor.open(self._agents)
        await self.bound.open(self.lab.servers[0], self._agents)
        if nebula:
            self.nebula = Nebula(self._directory / "nebula", self.lab.servers[0], self._agents)
            self.nebula.open()
        favour([os.getpid(), *of_lab(self.lab), *self.floor.pids(), *self.bound.pids()])

    async def close(self) -> None:
        """End what ``open`` started."""
        if self.nebula is not None:
            self.nebula.close()
        await self.bound.close()
        await self.floor.close()

    async def measure(
        self, delay_ms: float, families: Sequence[int], contacts: int, nebula_contacts: int
    ) -> None:
        """Measure at one delay; the systems take turns."""
        self._delay_s = delay_ms / 1e3
        run("wgmap-chaos", "lab", "set", "--delay", f"{delay_ms}", "--dir", str(self._directory))
        favour(of_lab(self.lab))
        for number in range(-WARM_UP, contacts):
            for family in families:
                rows = [await self._floor(number, family), self._ours(number, family)]
                if family == 4 and number % 2 == 0:  # in one direction
                    rows.append(await self._bound())
                if number < nebula_contacts and family == 4 and self.nebula is not None:
                    rows += self._nebula(self.nebula, number)
                self.rows += rows if number >= 0 else []
            if number > 0 and number % 50 == 49:
                print(f"{delay_ms:g} ms: {number + 1} of {contacts}", flush=True)

    async def _floor(self, number: int, family: int) -> Row:
        asking, asked = self._sides(number)
        await self.floor.reset()
        self._settle()
        return self._row(FLOOR, family, self._ask(asking, self.floor.eid(asked, family)))

    async def _bound(self) -> Row:
        await self.bound.reset()
        self._settle()
        return self._row(BOUND, 4, self._ask(self._agents[0], self.bound.eid))

    def _ours(self, number: int, family: int) -> Row:
        for _ in range(TRIES):
            row = self._ours_once(number, family)
            if row.requests:
                return row
        raise RuntimeError("no contact is cold: nobody is asked")

    def _ours_once(self, number: int, family: int) -> Row:
        asking, asked = self._sides(number)
        self._part(asking, asked)
        self._capture.take()
        eid = asked.eids[0 if family == 4 else 1]
        reply = self._ask(asking, eid)
        seen = self._capture.take()
        found = steps.times(self.lab, asking, seen, steps.stamps(asking, eid))
        took = {} if reply.replied is None else steps.durations(reply, found)
        servers = {server.name for server in self.lab.servers}
        requests = [one for one in seen if one.tap in servers and one.kind == "lisp 1"]
        return self._row(OURS, family, reply, len(requests), took)

    def _part(self, asking: AgentEntry, asked: AgentEntry) -> None:
        """Make strangers of them, also where a second question's push is on its way meanwhile.

        Such a push would leave a peer at the asking side that its other side knows nothing of.
        """
        for _ in range(2):
            for one, other in ((asking, asked), (asked, asking)):
                statussocket.request(one.socket, {"op": "forget", "eid": str(other.eids[0])})
            self._settle()

    def _nebula(self, nebula: Nebula, number: int) -> list[Row]:
        asking, asked = self._sides(number)
        if not nebula.reset(asking, self._probers[asking.name]):
            return []  # it did not start in time on a busy machine: no contact was made
        self._settle()
        return [self._row(NEBULA, 4, self._ask(asking, nebula.eid(asked)))]

    def _sides(self, number: int) -> tuple[AgentEntry, AgentEntry]:
        one, other = self._agents
        return (one, other) if number % 2 == 0 else (other, one)

    def _ask(self, asking: AgentEntry, eid: IPAddress) -> Reply:
        return self._probers[asking.name].ask(eid)

    def _row(
        self,
        system: str,
        family: int,
        reply: Reply,
        requests: int = 0,
        took: dict[str, float] | None = None,
    ) -> Row:
        load = round(os.getloadavg()[0], 1)
        delay_ms = self._delay_s * 1e3
        return Row(delay_ms, family, system, reply.took_ms, load, requests, took or {})

    def _settle(self) -> None:
        time.sleep(SETTLE_S + 4 * self._delay_s)


@contextmanager
def _lab() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="wgmap-bench-") as name:
        sizes = ["--servers", "3", "--agents", "2"]
        try:
            run("wgmap-chaos", "lab", "up", *sizes, "--dir", name, timeout_s=180)
            yield Path(name)
        finally:
            run("wgmap-chaos", "lab", "down", "--dir", name)


async def _measure(options: argparse.Namespace) -> list[Row]:
    with _lab() as directory, ExitStack() as stack:
        bench = Bench(directory, stack)
        try:
            await bench.open(nebula=options.nebula and is_there())
            for delay in options.delay:
                await bench.measure(delay, options.family, options.contacts, options.nebula)
        finally:
            await bench.close()
        return bench.rows


def main() -> int:
    """Measure and write the results."""
    parser = results.parser(__doc__, "first-contact-speed")
    parser.add_argument("--contacts", type=int, default=200, help="for each delay and family")
    parser.add_argument("--nebula", type=int, default=50, help="its contacts for each delay")
    parser.add_argument("--delay", type=float, nargs="+", default=[0.0, 20.0], metavar="MS")
    parser.add_argument("--family", type=int, nargs="+", default=[4, 6], choices=[4, 6])
    options = parser.parse_args()
    rows = asyncio.run(_measure(options))
    results.publish(options, report.section(rows), rows, report.write_csv, report.draw)
    return 0


if __name__ == "__main__":
    sys.exit(main())
