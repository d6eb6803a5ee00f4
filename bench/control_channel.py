"""A lookup by LISP over UDP, by gRPC and by HTTP, in one control tunnel (the paper's figure 7).

An agent's host asks a map server's host for the mapping of another agent, each way once a round, in
random order: the responder that runs there, and beside it a program that answers the same by gRPC
(grpcio) and by HTTP (aiohttp) from a table in memory. Connections are kept, and once more made for
each lookup. Wants root. Prints Markdown, and writes CSV and PNG.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import results
from matplotlib.figure import Figure
from results import quantile

from wgmap_chaos.lab import inventory
from wgmap_chaos.lab.inventory import Inventory
from wgmap_chaos.programs import ask, run

BENCH = Path(__file__).resolve().parent
WAYS = ("lisp", "grpc", "http", "grpc, new", "http, new")
Rows = dict[float, list[dict[str, float]]]  # one-way delay in ms -> rounds


@contextmanager
def _lab(delay: float) -> Iterator[Inventory]:
    with tempfile.TemporaryDirectory(prefix="wgmap-bench-") as name:
        sizes = ["--servers", "3", "--agents", "2", "--delay", f"{delay}"]
        try:
            run("wgmap-chaos", "lab", "up", *sizes, "--dir", name, timeout_s=180)
            yield inventory.read(Path(name) / "lab.json")
        finally:
            run("wgmap-chaos", "lab", "down", "--dir", name)


def compiled(folder: Path) -> dict[str, str]:
    """Compile the .proto; returns the environment in which its modules are found."""
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{BENCH / 'channel'}"]
    command += [f"--python_out={folder}", f"--grpc_python_out={folder}", "lookup.proto"]
    subprocess.run(command, check=True)
    return os.environ | {"PYTHONPATH": f"{folder}:{BENCH}"}


def measure(delay: float, rounds: int, environment: dict[str, str]) -> list[dict[str, float]]:
    """Measure at one delay."""
    with _lab(delay) as lab:
        server, (asking, asked) = lab.servers[0], lab.agents
        eid = str(asked.eids[0])
        mapping = ask("wgmap", "--socket", str(server.admin_socket), "resolve", eid)
        control = str(server.control)
        command = _inside(server.netns, "channel.serve", control, json.dumps({eid: mapping}))
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as serving:
            try:
                assert serving.stdout is not None
                if serving.stdout.readline() != b"ready\n":
                    raise RuntimeError("gRPC and HTTP are not served")
                own = str(asking.control)
                command = _inside(asking.netns, "channel.ask", own, control, eid, str(rounds))
                out = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
            finally:
                serving.terminate()
    return [json.loads(line) for line in out.stdout.splitlines()]


def _inside(netns: str, module: str, *arguments: str) -> list[str]:
    return ["/usr/sbin/ip", "netns", "exec", netns, sys.executable, "-m", module, *arguments]


def table(rows: Rows) -> str:
    """Write the medians and percentiles, and each way's ratio to LISP."""
    lines = ["| delay, one way | way | lookups | p50 ms | p90 | p99 | p50 to LISP's |",
             "|---|---|---|---|---|---|---|"]  # fmt: skip
    for delay, rounds in rows.items():
        lisp = quantile([one["lisp"] for one in rounds], 0.5)
        for way in WAYS:
            took = [one[way] for one in rounds]
            marks = " | ".join(f"{quantile(took, part):.2f}" for part in (0.5, 0.9, 0.99))
            ratio = quantile(took, 0.5) / lisp
            lines.append(f"| {delay:g} ms | {way} | {len(took)} | {marks} | {ratio:.2f} |")
    return "\n".join(lines)


def write_csv(path: Path, rows: Rows) -> None:
    """Write one line a round."""
    lines = (
        [delay, *(f"{one[way]:.3f}" for way in WAYS)]
        for delay, rounds in rows.items()
        for one in rounds
    )
    results.write_rows(path, ["delay_ms", *WAYS], lines)


def draw(path: Path, rows: Rows) -> None:
    """Write the distributions as PNG."""
    figure = Figure(figsize=(6 * len(rows), 4), layout="constrained")
    for axes, (delay, rounds) in zip(
        figure.subplots(1, len(rows), squeeze=False)[0], rows.items(), strict=True
    ):
        for way in WAYS:
            took = sorted(one[way] for one in rounds)
            share = [(number + 1) / len(took) for number in range(len(took))]
            axes.step(took, share, where="post", label=way)
        axes.set_title(f"{delay:g} ms one way")
        axes.set_xlabel("answer after, ms (log)")
        axes.set_ylabel("share of lookups")
        axes.set_xscale("log")
        axes.grid(visible=True, which="both", alpha=0.2)
        axes.legend(loc="lower right")
    figure.savefig(path, dpi=100)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and write the results."""
    parser = results.parser(__doc__, "control-channel")
    parser.add_argument("--lookups", type=int, default=150, help="of each way, at each delay")
    parser.add_argument("--delay", type=float, nargs="+", default=[0.0, 20.0], metavar="MS")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        environment = compiled(Path(name))
        rows = {delay: measure(delay, options.lookups, environment) for delay in options.delay}
    results.publish(options, table(rows), rows, write_csv, draw)
    return 0


if __name__ == "__main__":
    sys.exit(main())
