"""One agent with many data peers: processor, memory, first contacts a second, and a scan.

A real agent over real wireguard-go, and a map server; all the other hosts are one process
(``crowd``) that answers their handshakes and messages. Beside the agent's own device the same peers
are in another one where everything was installed by hand. While peers are *active* the agent's host
exchanges a packet with each of them every ten seconds. Wants root. Prints Markdown, and writes CSV
and PNG.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import measured
import results
from agents import report
from agents.caller import Caller, Contacts
from agents.hand import ByHand, by_hand
from crowd.members import EIDS, Member, members
from crowd.place import Crowd, crowd, enrol
from measured import Notes
from usage import Groups, Reading, running

from wgmap.clock import now
from wgmap_agent.runner import statussocket
from wgmap_chaos.lab import commands, inventory
from wgmap_chaos.lab.inventory import AgentEntry, Inventory
from wgmap_chaos.lab.relay import Quality
from wgmap_chaos.lab.waiting import Deadline
from wgmap_chaos.priority import favour, of_lab

PERIOD_S = 10.0  # of the exchange with each peer
SETTLE_S = 120.0  # at most: until two servers tell of each peer
READY_S = 120.0
GROWTH_WINDOW = 64
AGAIN = 500  # peers that are forgotten and contacted again
SCANNED, SCAN_RATE = 10_000, 1000.0
PAUSE_S = 0.08  # between two contacts beside the scan, which so last about as long as it does
# Addresses of the overlay that are nobody's: below those of the crowd, above the agents'.
NOBODY = int(EIDS.network_address) - (SCANNED + 1000)


@dataclass(kw_only=True)
class Bench(Notes):
    """What is measured on, and what came of it."""

    directory: Path
    lab: Inventory
    crowd: Crowd
    caller: Caller
    seconds: float

    @property
    def agent(self) -> AgentEntry:
        """The one real agent."""
        return self.lab.agents[0]

    def groups(self, *, stopped: bool = False) -> Groups:
        """Return the processes that are watched."""
        agent, servers = self.agent, self.lab.servers
        wireguard = agent.wireguard
        own = {} if stopped else {"agent": running(agent.pids["agent"])}
        return own | {
            "wireguard-go, data": running(wireguard[agent.data_interface]),
            "wireguard-go, control": running(wireguard[agent.control_interface]),
            "responders": running(*(one.pids["responder"] for one in servers)),
            "replicas": running(*(one.pids["replica"] for one in servers)),
            "servers' wireguard-go": running(
                *(p for one in servers for p in one.wireguard.values())
            ),
            "crowd": (self.crowd.pid,),
        }

    def status(self) -> dict[str, Any]:
        """Return what the agent says of itself."""
        answer: dict[str, Any] = statussocket.request(self.agent.socket, {"op": "status"})
        return answer

    # ------------------------------------------------------------------------------- phases

    def contacts(
        self,
        phase: str,
        peers: int,
        whom: Sequence[IPv4Address],
        window: int,
        groups: Groups,
        pause_s: float = 0.0,
    ) -> Contacts:
        """Make first contacts, and note how fast and what each cost whom."""
        before = Reading.take(groups)
        done = self.caller.paced(whom, pause_s) if pause_s else self.caller.contact(whom, window)
        after = Reading.take(groups)
        made = len(done.took_ms)
        self.note(phase, peers, "all", "contacts", made, window=window)
        self.note(phase, peers, "all", "lost", done.lost, window=window)
        self.note(phase, peers, "all", "rate", made / done.seconds, unit="1/s", window=window)
        for part in (0.5, 0.9, 0.99, 1.0):
            took = done.part_ms(part)
            self.note(phase, peers, "all", f"p{100 * part:g}", took, unit="ms", window=window)
        for name in groups:
            each = after.cpu_s(before, name) / max(1, made) * 1e6
            self.note(phase, peers, name, "cpu each", each, unit="us", window=window)
        return done

    def active(self, phase: str, whom: Sequence[IPv4Address], groups: Groups) -> None:
        """Exchange packets with all of them for a while, and note what everybody used."""
        before = Reading.take(groups)
        sent, answered = self.caller.exchange(whom, PERIOD_S, self.seconds)
        after = Reading.take(groups)
        self.note(phase, len(whom), "all", "packets", sent)
        self.note(phase, len(whom), "all", "unanswered", sent - answered)
        for name in groups:
            share = 100 * after.share(before, name)
            self.note(phase, len(whom), name, "cpu", share, unit="%")
            self.note(phase, len(whom), name, "memory", after.of[name].rss_bytes / 1e6, unit="MB")

    def settle(self, whom: Sequence[IPv4Address]) -> None:
        """Exchange packets until the agent has nothing left to do about its peers."""
        end = now() + SETTLE_S
        while now() < end:
            self.caller.exchange(whom, PERIOD_S, 2.0)
            counters = self.status()["counters"]
            alone = len(self.lab.servers) == 1  # there is no second server to ask
            if not counters["now.flows"] and (alone or not counters["now.once_told_peers"]):
                return

    def forget(self, whom: Sequence[IPv4Address]) -> None:
        """Have the agent forget these."""
        for eid in whom:
            statussocket.request(self.agent.socket, {"op": "forget", "eid": str(eid)})

    def scan(self, peers: int, known: Sequence[IPv4Address]) -> None:
        """Contact some that are known while the host scans addresses that are nobody's."""
        groups = self.groups()
        targets = [IPv4Address(NOBODY + number) for number in range(SCANNED)]
        self.forget(known)
        before = Reading.take(groups)
        scanner = Caller(self.agent.netns)
        thread = threading.Thread(target=scanner.scan, args=(targets, SCAN_RATE))
        thread.start()
        self.contacts("during the scan", peers, known, 1, groups, PAUSE_S)
        thread.join()
        Deadline(READY_S).wait(
            lambda: not self.status()["counters"]["now.flows"], lambda: "the scan's flows end"
        )
        after = Reading.take(groups)
        scanner.close()
        self.note("scan", peers, "all", "addresses", SCANNED)
        self.note("scan", peers, "all", "seconds", after.at - before.at, unit="s")
        for name in groups:
            cpu = after.cpu_s(before, name) / SCANNED * 1e6
            grown = (after.of[name].rss_bytes - before.of[name].rss_bytes) / 1e6
            self.note("scan", peers, name, "cpu an address", cpu, unit="us")
            self.note("scan", peers, name, "growth", grown, unit="MB")

    def restart(self, whom: Sequence[IPv4Address]) -> None:
        """End the agent, see what its device uses alone, and start it again."""
        statussocket.request(self.agent.socket, {"op": "stop"})
        groups = self.groups(stopped=True)
        self.active("agent ended", whom, groups)
        began = now()
        self.lab = commands.start_agents(self.directory, ())
        favour(of_lab(self.lab))
        Deadline(READY_S).wait(lambda: self.status()["registered"], lambda: "registered")
        self.note("restart", len(whom), "agent", "registered", now() - began, unit="s")
        Deadline(READY_S).wait(
            lambda: len(self.status()["peers"]) >= len(whom), lambda: "the peers are adopted"
        )
        self.note("restart", len(whom), "agent", "adopted", now() - began, unit="s")


def measure(bench: Bench, sizes: Sequence[int], windows: Sequence[int]) -> None:
    """Grow to each size, then contact some again, by hand too; scan; restart."""
    whom = members(0, max(sizes))
    eids = [one.eid for one in whom]
    groups = bench.groups()
    bench.active("no peers", eids[:0], groups)
    for former, size in zip((0, *sizes), sizes, strict=False):
        bench.contacts("growth", former, eids[former:size], GROWTH_WINDOW, groups)
        bench.settle(eids[:size])
        bench.active("active", eids[:size], groups)
    again = eids[: _again(eids, windows)]
    for window in windows:
        bench.forget(again)
        bench.contacts("again", len(eids), again, window, groups)
    bench.forget(again)
    bench.contacts("before the scan", len(eids), again[:100], 1, groups, PAUSE_S)
    bench.settle(eids)
    bench.scan(len(eids), again[:100])
    asyncio.run(_by_hand(bench, whom, windows))
    bench.restart(eids)


def _again(eids: Sequence[IPv4Address], windows: Sequence[int]) -> int:
    """Return how many are contacted again; by hand these are others in each turn."""
    return min(AGAIN, len(eids) // len(windows))


async def _by_hand(bench: Bench, whom: list[Member], windows: Sequence[int]) -> None:
    async with by_hand(bench.agent, whom) as device:
        favour([device.pid])
        groups = {"wireguard-go, by hand": (device.pid,), "crowd": (bench.crowd.pid,)}
        eids = [ByHand.eid(one) for one in whom]
        count = _again(eids, windows)
        for number, window in enumerate(windows):
            some = eids[count * number : count * (number + 1)]
            await asyncio.to_thread(bench.contacts, "by hand", len(whom), some, window, groups)
        bench.caller.contact(eids, GROWTH_WINDOW)  # the rest of them, not to be measured along
        await asyncio.to_thread(bench.active, "by hand", eids, groups)


@contextmanager
def ground(options: argparse.Namespace) -> Iterator[Bench]:
    """Bring everything up, and down again."""
    with tempfile.TemporaryDirectory(prefix="wgmap-scale-") as name:
        directory = Path(name)
        try:
            commands.up(directory, options.servers, 1, Quality())
            lab = inventory.read(directory / "lab.json")
            with crowd(directory, lab) as them:
                favour([os.getpid(), them.pid, *of_lab(lab)])
                whom = members(0, max(options.peers))
                enrol(lab, whom)
                them.join(0, len(whom))
                caller = Caller(lab.agents[0].netns)
                yield Bench(
                    directory=directory, lab=lab, crowd=them, caller=caller, seconds=options.seconds
                )
                caller.close()
        finally:
            commands.down(directory)


def main() -> int:
    """Measure, and write the results."""
    parser = results.parser(__doc__, "agent-scale")
    parser.add_argument("--peers", type=int, nargs="+", default=[1, 100, 1000, 5000])
    parser.add_argument("--windows", type=int, nargs="+", default=[1, 16, 64, 256])
    parser.add_argument("--servers", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each steady phase")
    options = parser.parse_args()
    began = time.monotonic()
    with ground(options) as bench:
        try:
            measure(bench, sorted(options.peers), options.windows)
        finally:
            results.keep(options, bench.values, measured.write)
    text = report.tables(bench.values)
    results.publish(options, text, bench.values, measured.write, report.draw)
    print(f"{time.monotonic() - began:.0f} s", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
