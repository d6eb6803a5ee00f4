"""How fast a responder answers, from ten to a million mappings, beside servers in C.

Three servers are asked in turns, over loopback, by one program in C: *echo* sends every datagram
back (no server is faster), *plain* is a map server in C without anything but the answer, *wgmap*
is the responder's own program, fed through its feed. Answers for each second of processor time
that the server used, which says the same on a busy machine; and the time of an answer with one
request out. Prints Markdown, and writes CSV and PNG.
"""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import results
from lookups import rows, servers
from lookups.servers import Run, Running
from matplotlib.figure import Figure

SERVERS = ("echo", "plain", "wgmap")
COLOURS = {"echo": "tab:grey", "plain": "tab:green", "wgmap": "tab:blue"}
ONE = 1  # the window of the runs that measure time
EMPTY = 10  # mappings of the process that memory is compared with


@dataclass(frozen=True, slots=True)
class Row:
    """One run."""

    mappings: int
    keys: bool
    server: str
    window: int
    run: Run
    rss_bytes: int


async def measure(options: argparse.Namespace, folder: Path) -> list[Row]:
    """Ask all servers, all sizes."""
    servers.build(folder)
    found: list[Row] = []
    for keys in (True, False):
        for mappings in options.mappings:
            where = folder / f"{mappings}-{keys}"
            where.mkdir()
            found += await _one_size(options, folder, where, mappings, keys=keys)
            print(f"{mappings} mappings, keys: {keys}", file=sys.stderr, flush=True)
    return found


async def _one_size(
    options: argparse.Namespace, folder: Path, where: Path, mappings: int, *, keys: bool
) -> list[Row]:
    records = where / "records"
    rows.write_records(records, mappings, keys=keys)
    async with AsyncExitStack() as stack:
        running = (
            stack.enter_context(servers.in_c(folder, "echo")),
            stack.enter_context(servers.in_c(folder, "plain", str(records))),
            await stack.enter_async_context(
                servers.responder(where, rows.rows(mappings, keys=keys))
            ),
        )
        for server in running:  # caches and tables as they are after a while
            await _ask(folder, server, mappings, options.window, options.seconds, 0)
        return [
            Row(mappings, keys, server.name, window, run, server.rss_bytes())
            for turn in range(options.turns)
            for window in (options.window, ONE)
            for server in running
            for run in [await _ask(folder, server, mappings, window, options.seconds, turn + 1)]
        ]


async def _ask(
    folder: Path, server: Running, mappings: int, window: int, seconds: float, seed: int
) -> Run:
    return await servers.ask(folder, server, mappings, window=window, seconds=seconds, seed=seed)


def table(found: Sequence[Row]) -> str:
    """Write what was measured: medians of the turns."""
    lines = [
        "| mappings | key | server | answers a core-second | to plain C | to the echo "
        "| to 1,000 mappings | one out: p50 | p99 | p99 to the echo's | max | lost |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    sizes = sorted({row.mappings for row in found})
    for keys in (True, False):
        for mappings in sizes:
            lines += [_line(found, mappings, name, keys=keys) for name in SERVERS]
    lines += ["", _limit(found), "", _memory(found, sizes)]
    return "\n".join(lines)


def _line(found: Sequence[Row], mappings: int, server: str, *, keys: bool) -> str:
    def rate(name: str, size: int) -> float:
        return _median(found, "a_core_second", size, name, keys=keys)

    own = rate(server, mappings)
    same = rate(server, 1000)
    p50, p99, echo, worst = (
        _median(found, what, mappings, name, keys=keys, one=True)
        for what, name in (
            ("p50_us", server), ("p99_us", server), ("p99_us", "echo"), ("max_us", server),
        )
    )  # fmt: skip
    lost = sum(
        row.run.lost
        for row in found
        if (row.mappings, row.server, row.keys) == (mappings, server, keys)
    )
    return (
        f"| {mappings:,} | {'yes' if keys else 'no'} | {server} | {own:,.0f} "
        f"| {own / rate('plain', mappings):.2f} | {own / rate('echo', mappings):.2f} "
        f"| {own / same if same else float('nan'):.2f} "
        f"| {p50:.0f} us | {p99:.0f} us | {p99 / echo:.1f} | {worst / 1e3:.1f} ms | {lost} |"
    )


def _median(
    found: Sequence[Row], what: str, mappings: int, server: str, *, keys: bool, one: bool = False
) -> float:
    values = [
        float(getattr(row.run, what))
        for row in found
        if (row.mappings, row.server, row.keys, row.window == ONE) == (mappings, server, keys, one)
    ]
    return median(values) if values else 0.0


def _limit(found: Sequence[Row]) -> str:
    """Say how fast what asks can be: beside the echo it is the slower one or not."""
    echo = [row.run for row in found if row.server == "echo" and row.window != ONE]
    asking = median(run.answered / run.cpu_s for run in echo)
    return f"What asks manages {asking:,.0f} requests with their answers a core-second (echo)."


def _memory(found: Sequence[Row], sizes: Sequence[int]) -> str:
    largest = sizes[-1]
    used = {
        size: max(row.rss_bytes for row in found
                  if (row.server, row.mappings, row.keys) == ("wgmap", size, True))
        for size in (sizes[0], largest)
    }  # fmt: skip
    each = (used[largest] - used[sizes[0]]) / (largest - sizes[0])
    return (
        f"Memory of the responder for each mapping, with its peer, at {largest:,}: {each:,.0f} "
        f"bytes ({used[largest] / 1e6:,.0f} MB in all; {used[sizes[0]] / 1e6:.0f} MB with "
        f"{sizes[0]} mappings)."
    )


def write_csv(path: Path, found: Sequence[Row]) -> None:
    """Write one line a run."""
    names = ("answered", "lost", "seconds", "cpu_s", "server_cpu_s",
             "p50_us", "p90_us", "p99_us", "max_us")  # fmt: skip

    def line(row: Row) -> list[object]:
        values = [round(getattr(row.run, name), 6) for name in names]
        return [row.mappings, int(row.keys), row.server, row.window, row.rss_bytes, *values]

    head = ["mappings", "keys", "server", "window", "rss_bytes", *names]
    results.write_rows(path, head, map(line, found))


def draw(path: Path, found: Sequence[Row]) -> None:
    """Write the rates and the times as PNG."""
    figure = Figure(figsize=(12, 4.5), layout="constrained")
    panels = (("a_core_second", False, "answers for a second of the server's processor time"),
              ("p99_us", True, "one request out: 99 of 100 answered within, us"))  # fmt: skip
    sizes = sorted({row.mappings for row in found})
    for axes, (what, one, title) in zip(figure.subplots(1, 2), panels, strict=True):
        for name in SERVERS:
            for keys, style in ((True, "-"), (False, ":")):
                values = [_median(found, what, size, name, keys=keys, one=one) for size in sizes]
                label = name if keys else f"{name}, no key"
                axes.plot(sizes, values, style, marker="o", color=COLOURS[name], label=label)
        axes.set_xscale("log")
        axes.set_ylim(bottom=0)
        axes.set_xlabel("mappings")
        axes.set_title(title, fontsize="medium")
        axes.grid(visible=True, alpha=0.2)
        axes.legend()
    figure.savefig(path, dpi=100)


def main() -> int:
    """Measure, and print a table."""
    parser = results.parser(__doc__, "scalability")
    parser.add_argument("--mappings", type=int, nargs="+", default=[10, 1000, 100_000, 1_000_000])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each run")
    parser.add_argument("--window", type=int, default=64, help="requests out at a time")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        found = asyncio.run(measure(options, Path(name)))
    results.publish(options, table(found), found, write_csv, draw)
    return 0


if __name__ == "__main__":
    sys.exit(main())
