"""A fleet that loses a map server and gets it back, in virtual time: how its messages spread.

``python -m support.agent_sim.storm --agents 1000`` writes ``docs/evaluation/storms.md``.
"""

import argparse
import csv
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from support.agent_sim.lab import Lab, ServerHost
from support.agent_sim.wireguard import Message
from wgmap.addresses import Endpoint

DELAY_S = 0.01  # one way
PEERS = 3  # that each agent has a tunnel to
BIN_S = 0.1
MARK = "<!-- measured: everything below is written by make bench-storms -->"


@dataclass(frozen=True, slots=True)
class Phase:
    """What happened when; seconds of virtual time."""

    title: str
    begin: float
    end: float


@dataclass
class Storm:
    """When there was work for each server: a message of the protocol, or a handshake to answer.

    WireGuard's keepalives are left out.
    """

    agents: int
    phases: list[Phase] = field(default_factory=list)
    arrived: dict[str, list[float]] = field(default_factory=dict)

    def per_s(self, server: str, phase: Phase, width_s: float) -> list[float]:
        """Return messages a second in one bin after the other."""
        bins = Counter(
            int((at - phase.begin) / width_s)
            for at in self.arrived[server]
            if phase.begin <= at < phase.end
        )
        count = int((phase.end - phase.begin) / width_s)
        return [bins[number] / width_s for number in range(count)]

    def mean(self, server: str) -> float:
        """Return messages a second before anything happened."""
        return statistics.mean(self.per_s(server, self.phases[0], 1.0))

    def peak(self, server: str, phase: Phase) -> float:
        """Return the most messages in any second of a phase."""
        return max(self.per_s(server, phase, 1.0))

    def ratio(self, server: str, phase: Phase) -> float:
        """Return the peak beside the mean before."""
        return self.peak(server, phase) / self.mean(server)


class _Counted:
    """A device of a server that notes when something arrives."""

    def __init__(self, storm: Storm, server: ServerHost) -> None:
        self._device = server.device
        self._world = server.world
        self._arrived = storm.arrived.setdefault(server.info.name, [])

    def receive(self, source: Endpoint, content: Message) -> None:
        """Take in a datagram."""
        if not self._device.dead and (content.kind == "init" or content.payload is not None):
            self._arrived.append(self._world.now)
        self._device.receive(source, content)


def simulate(agents: int, *, seed: int = 1, seconds: float = 60.0) -> Storm:
    """Let a fleet live, lose its first server, and get it back without any session."""
    storm = Storm(agents)
    lab = Lab(seed=seed, delay=DELAY_S, agents=agents)
    lab.world.logging = False
    for server in lab.servers:
        lab.world.bind(server.info.endpoint, server.info.name, _Counted(storm, server))
    lab.start()
    for at, pair in enumerate(_pairs(agents)):
        source, target = (lab.hosts[number] for number in pair)
        lab.world.after(at * 20.0 / (agents * PEERS), lambda s=source, t=target: s.ping(t.eid))  # type: ignore[misc]
    lab.world.run(30)
    _phase(storm, lab, "nothing happens", seconds)
    lost = lab.servers[0]
    lost.die()
    _phase(storm, lab, "ms1 is lost", seconds)
    _reboot(lab, lost)
    _phase(storm, lab, "ms1 is back, without a session", seconds)
    assert lab.is_settled()
    heard = [host.engine is not None and _hears(lab, host.number) for host in lab.hosts]
    assert all(heard), f"{heard.count(False)} agents do not hear every server"
    return storm


def _pairs(agents: int) -> Iterator[tuple[int, int]]:
    for step in range(1, PEERS + 1):
        for number in range(agents):
            yield number, (number + step) % agents


def _phase(storm: Storm, lab: Lab, title: str, seconds: float) -> None:
    begin = lab.world.now
    lab.world.run(seconds)
    storm.phases.append(Phase(title, begin, begin + seconds))


def _reboot(lab: Lab, server: ServerHost) -> None:
    """Have a server live again that knows its peers and no session of theirs."""
    server.device.peers.clear()
    for host in lab.hosts:
        server.enrol(host)
    server.revive()


def _hears(lab: Lab, number: int) -> bool:
    engine = lab.hosts[number - 1].engine
    assert engine is not None
    told = engine.status(lab.world.now).servers
    return all(one.last_heard_s is not None and one.last_heard_s < 45 for one in told)


# ------------------------------------------------------------------------------------- report


def table(storm: Storm) -> str:
    """Write the peaks beside the means as a Markdown table."""
    lines = ["| server | mean before | when | peak of a second | peak / mean |"]
    lines.append("|---|---|---|---|---|")
    for phase in storm.phases:
        for server in sorted(storm.arrived):
            peak, ratio = storm.peak(server, phase), storm.ratio(server, phase)
            cells = (server, f"{storm.mean(server):.0f}/s", phase.title, f"{peak:.0f}/s")
            lines.append(f"| {' | '.join(cells)} | {ratio:.1f} |")
    return "\n".join(lines) + "\n"


def draw(storm: Storm, path: Path) -> None:
    """Write the picture as PNG: what arrives at each server, in bins of a tenth of a second."""
    mpl.use("Agg")
    figure = Figure(figsize=(11, 7), layout="constrained")
    first = storm.phases[0].begin
    whole = Phase("", first, storm.phases[-1].end)
    for axes, server in zip(figure.subplots(3, 1, sharex=True), sorted(storm.arrived), strict=True):
        values = storm.per_s(server, whole, BIN_S)
        axes.plot([number * BIN_S for number in range(len(values))], values, linewidth=0.8)
        for phase in storm.phases[1:]:
            axes.axvline(phase.begin - first, color="tab:red", linewidth=1)
        axes.set_ylabel(f"{server}: messages/s")
        axes.set_ylim(bottom=0)
        axes.grid(visible=True, alpha=0.2)
    axes.set_xlabel("seconds; red: ms1 is lost, ms1 is back")
    figure.suptitle(f"{storm.agents} agents lose a server at once, and get it back")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def write_csv(storm: Storm, path: Path) -> None:
    """Write one line for each server and bin of a tenth of a second: messages a second."""
    whole = Phase("", storm.phases[0].begin, storm.phases[-1].end)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["server", "second", "messages_a_second"])
        for server in sorted(storm.arrived):
            for number, value in enumerate(storm.per_s(server, whole, BIN_S)):
                writer.writerow([server, f"{number * BIN_S:.1f}", f"{value:.0f}"])


def main() -> int:
    """Simulate a fleet and write the report."""
    parser = argparse.ArgumentParser(prog="python -m support.agent_sim.storm", description=__doc__)
    parser.add_argument("--agents", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("docs/evaluation"))
    options = parser.parse_args()
    began = time.monotonic()
    storm = simulate(options.agents, seed=options.seed)
    took = time.monotonic() - began
    document = options.out / "storms.md"
    before = document.read_text().partition(MARK)[0] if document.exists() else ""
    how = f"{options.agents} agents, seed {options.seed}, {took:.0f} s of simulation."
    text = f"{MARK}\n\n{how}\n\n{table(storm)}\n![arrivals](storms.png)\n\n"
    text += "All bins: [storms.csv](storms.csv).\n"
    draw(storm, options.out / "storms.png")
    write_csv(storm, options.out / "storms.csv")
    document.write_text(before + text)
    sys.stdout.write(table(storm))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
