"""A map server with many control tunnels: start, memory and steady processor time, by process.

One real server over real wireguard-go; the agents are one process (``crowd``) that says in real
tunnels what agents say: a probe after ten seconds without a word of the server, a register each
minute, WireGuard's own handshakes and keepalives. Beside them is one real agent, to compare what
it says. The kernel's WireGuard is measured as a ratio in the virtual machine of ``make
test-kernel`` (``--kernel``). Wants root. Prints Markdown, and writes CSV and PNG.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import measured
import results
from crowd.members import members
from crowd.place import Crowd, crowd, enrol
from crowd.registers import Kind
from devices import report
from measured import Notes, Value
from usage import Groups, Reading, Usage, running

from wgmap.clock import now
from wgmap_chaos.lab import commands, inventory
from wgmap_chaos.lab.inventory import AgentEntry, Inventory, ServerEntry
from wgmap_chaos.lab.relay import Quality
from wgmap_chaos.lab.removal import UAPI_ROOT, alive
from wgmap_chaos.lab.waiting import Deadline
from wgmap_chaos.priority import favour, of_lab

ROOT = Path(__file__).resolve().parent.parent
WARM_S = 20.0
READY_S = 300.0
MOVING, MOVING_S = (1, 64), 5.0
KINDS = ("probes", "answers", "registers", "registered", "keepalives", "pushes")


@dataclass(kw_only=True)
class Bench(Notes):
    """What is measured on, and what came of it."""

    directory: Path
    lab: Inventory
    crowd: Crowd
    seconds: float

    @property
    def server(self) -> ServerEntry:
        """The server."""
        return self.lab.servers[0]

    @property
    def agent(self) -> AgentEntry:
        """The one real agent."""
        return self.lab.agents[0]

    def groups(self) -> Groups:
        """Return the processes that are watched."""
        server = self.server
        found = {
            role: running(server.pids[role]) for role in ("supervisor", "replica", "responder")
        }
        return found | {
            "wireguard-go": running(server.wireguard[server.control_interface]),
            "crowd": (self.crowd.pid,),
        }

    # ------------------------------------------------------------------------------- phases

    def grow(self, former: int, peers: int) -> None:
        """Enrol more peers, have them register, and say from then on what agents say."""
        whom = members(former, peers - former)
        began = now()
        enrol(self.lab, whom, anywhere=True)
        self.note("enrol", peers, "all", "rate", len(whom) / (now() - began), "1/s")
        began = now()
        self.crowd.join(former, len(whom))
        self.note("first registers", peers, "all", "rate", len(whom) / (now() - began), "1/s")
        self.crowd.live()

    def steady(self, peers: int) -> None:
        """See what everybody uses while the agents only say what they say."""
        time.sleep(
            WARM_S
        )  # moments of registers are spread over a minute, of probes over ten seconds
        groups = self.groups()
        before, said, packets = Reading.take(groups), self.crowd.counts(), self._agent_packets()
        time.sleep(self.seconds)
        after, then, later = Reading.take(groups), self.crowd.counts(), self._agent_packets()
        seconds = after.at - before.at
        for name in groups:
            self.note("steady", peers, name, "cpu", 100 * after.share(before, name), "%")
            self.note("steady", peers, name, "memory", after.of[name].rss_bytes / 1e6, "MB")
        answer = len(_ask_device(self.server.control_interface)) / 1e6
        self.note("steady", peers, "wireguard-go", "answer", answer, "MB")
        for kind in KINDS:
            self.note("steady", peers, "all", kind, (then[kind] - said[kind]) / seconds, "1/s")
        for way in ("bytes_out", "bytes_in"):  # as the agents see it
            bits = 8 * (then[way] - said[way]) / seconds / 1e6
            self.note("steady", peers, "all", way, bits, "Mbit/s")
        own = sum(then[kind] - said[kind] for kind in ("probes", "registers", "pushes"))
        self.note("steady", peers, "a member", "packets", 60 * own / seconds / peers, "1/min")
        self.note(
            "steady", peers, "a real agent", "packets", 60 * (later - packets) / seconds, "1/min"
        )

    def moves(self, peers: int) -> None:
        """Have members move, one after another and many at once, and see when that is acknowledged.

        The server must look where their tunnels come from now, before it takes their new address.
        """
        for window in MOVING:
            if window > peers:
                continue
            done = self.crowd.registers(self.server.name, window, MOVING_S, Kind.MOVED)
            phase = f"moves, {window} at a time"
            for name in ("p50_ms", "p99_ms", "max_ms"):
                self.note(phase, peers, "all", name.removesuffix("_ms"), done[name], "ms")
            self.note(phase, peers, "all", "rate", done["count"] / done["seconds"], "1/s")
            self.note(phase, peers, "all", "lost", done["lost"])

    def start(self, phase: str, peers: int, *, reboot: bool) -> None:
        """End the server and start it again; with ``reboot`` its interfaces are gone as well."""
        self._end(reboot=reboot)
        began = now()
        starting = threading.Thread(target=self._start)
        starting.start()
        self.note(phase, peers, "all", "first answer", self.crowd.answered() - began, "s")
        starting.join()
        self.note(phase, peers, "all", "takes peers", now() - began, "s")
        for figure, wanted in (("peers on the device", ""), ("handshakes", "handshake")):
            Deadline(READY_S).wait(
                lambda wanted=wanted: self._on_device(wanted) >= peers,  # type: ignore[misc]
                lambda figure=figure: figure,  # type: ignore[misc]
            )
            self.note(phase, peers, "all", figure, now() - began, "s")
        for name, pids in self.groups().items():
            if name != "crowd":
                self.note(phase, peers, name, "cpu until then", Usage.of(*pids).cpu_s, "s")

    def _start(self) -> None:
        self.lab = commands.start_servers(self.directory, ())
        favour(of_lab(self.lab))

    def _end(self, *, reboot: bool) -> None:
        pids = [pid for pid in self.server.pids.values() if pid is not None]
        if reboot:
            pids += [pid for pid in self.server.wireguard.values() if pid is not None]
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
        else:
            os.kill(running(self.server.pids["supervisor"])[0], signal.SIGTERM)
        Deadline(READY_S).wait(lambda: not any(map(alive, pids)), lambda: "the server ends")

    def _on_device(self, wanted: str) -> int:
        """Count the peers of the control interface, or those with a handshake."""
        try:
            text = _ask_device(self.server.control_interface)
        except OSError:
            return 0  # it is not there yet
        if not wanted:
            return text.count("\npublic_key=")
        return text.count("last_handshake_time_sec=") - text.count("last_handshake_time_sec=0\n")

    def _agent_packets(self) -> int:
        """Count what the real agent has sent in its control tunnel: messages, no keepalives."""
        agent = self.agent
        argv = ["ip", "-n", agent.netns, "-s", "-json", "link", "show", agent.control_interface]
        shown = subprocess.run(argv, capture_output=True, check=True)
        packets: int = json.loads(shown.stdout)[0]["stats64"]["tx"]["packets"]
        return packets


def _ask_device(interface: str) -> str:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.connect(str(UAPI_ROOT / f"{interface}.sock"))
        asking.sendall(b"get=1\n\n")
        text = b""
        while not text.endswith(b"\n\n"):
            if not (data := asking.recv(1 << 20)):
                raise ConnectionResetError
            text += data
    return text.decode()


def measure(bench: Bench, sizes: Sequence[int]) -> None:
    """Grow to each size, see what it uses, and start it again there."""
    for former, peers in zip((0, *sizes), sizes, strict=False):
        bench.grow(former, peers)
        bench.steady(peers)
        bench.moves(peers)
        bench.start("restart", peers, reboot=False)
        bench.start("reboot", peers, reboot=True)


def in_machine(sizes: Sequence[int]) -> list[Value]:
    """Compare the kernel's WireGuard with the one in user space, in the virtual machine."""
    (ROOT / "build" / "kernel").mkdir(parents=True, exist_ok=True)
    peers = " ".join(map(str, sizes))
    command = f"cd {ROOT}/bench && PYTHONPATH=. ../.venv/bin/python -u -m devices.compare"
    argv = [ROOT / "tests/kernel/run.sh", ROOT / "build" / "kernel", f"{command} --peers {peers}"]
    done = subprocess.run(list(map(str, argv)), stdout=subprocess.PIPE, text=True, check=True)
    lines: list[dict[str, Any]] = [
        json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")
    ]
    return [
        Value("device", one["peers"], one["backend"], figure, float(value))
        for one in lines
        for figure, value in one.items()
        if figure not in {"backend", "peers"}
    ]


@contextmanager
def ground(seconds: float) -> Iterator[Bench]:
    """Bring everything up, and down again."""
    with tempfile.TemporaryDirectory(prefix="wgmap-scale-") as name:
        directory = Path(name)
        try:
            commands.up(directory, 1, 1, Quality())
            lab = inventory.read(directory / "lab.json")
            with crowd(directory, lab) as them:
                favour([os.getpid(), them.pid, *of_lab(lab)])
                yield Bench(directory=directory, lab=lab, crowd=them, seconds=seconds)
        finally:
            commands.down(directory)


def main() -> int:
    """Measure, and write the results."""
    parser = results.parser(__doc__, "server-scale")
    parser.add_argument("--peers", type=int, nargs="+", default=[10, 1000, 10_000])
    parser.add_argument("--seconds", type=float, default=60.0, help="of each steady phase")
    parser.add_argument("--kernel", action="store_true", help="the kernel's as well, as ratios")
    options = parser.parse_args()
    sizes = sorted(options.peers)
    with ground(options.seconds) as bench:
        try:
            measure(bench, sizes)
        except KeyboardInterrupt:
            print("broken off: this is what was measured until then", file=sys.stderr)
        finally:
            results.keep(options, bench.values, measured.write)
    values = bench.values
    if options.kernel:
        values += in_machine([size for size in sizes if size >= 1000])
    results.publish(options, report.tables(values), values, measured.write, report.draw)
    return 0


if __name__ == "__main__":
    sys.exit(main())
