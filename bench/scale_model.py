"""What 10,000 to 10 million agents need, computed from the figures under docs/evaluation.

Reads ``server-scale.csv``, ``agent-scale.csv`` and ``committed.csv``, compares what a model of the
smaller runs says of the largest with what was measured there, and prints the tables of
docs/scale.md; writes CSV and PNG. Measures nothing, so it takes a second.
"""

import sys
from collections.abc import Sequence
from dataclasses import astuple, replace
from pathlib import Path

import results
from matplotlib.figure import Figure
from measured import only, pick, read
from model.costs import MICRO, PERCENT, Costs
from model.fleet import Fleet, Load, Machine, Plan, limits, names, plan

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "evaluation"
FLEETS = (1e4, 1e5, 1e6, 1e7)
FITTED, CHECKED = (10, 1000), 10_000
# What is computed goes through the two largest: of all lines through two runs this one says least,
# and what was measured grows less and less with the agents, so it still says too much.
LINE = (FITTED[1], CHECKED)
MACHINE = Machine()


def check(folder: Path) -> list[tuple[str, float, float]]:
    """Return what was predicted from small runs for the largest one, and what was measured."""
    costs = Costs.read(folder, sizes=FITTED)
    steady = pick(read(folder / "server-scale.csv"), phase="steady", peers=CHECKED)
    rows = []
    for name, process in (("responder", "responder"), ("replica", "replica"),
                          ("wireguard", "wireguard-go")):  # fmt: skip
        cpu, memory = (getattr(costs, what).at(CHECKED) for what in (name, f"{name}_memory"))
        found = only(steady, process=process, figure="cpu") * PERCENT
        rows.append((f"{process}: cores", cpu, found))
        found = only(steady, process=process, figure="memory") * 1e6
        rows.append((f"{process}: MB", memory / 1e6, found / 1e6))
    for way, name in (("bits_in", "bytes_out"), ("bits_out", "bytes_in")):
        found = only(steady, process="all", figure=name)
        rows.append((f"line, {way[5:]}: Mbit/s", getattr(costs, way).at(CHECKED) / 1e6, found))
    return rows


def tables(folder: Path) -> str:
    """Write what goes into the document."""
    costs = Costs.read(folder, sizes=LINE)
    return "\n\n".join((_each(costs), _needs(costs), _limits(costs), _checked(check(folder))))


def _each(costs: Costs) -> str:
    lines = [
        "| what one more agent costs each server | processor | memory |",
        "|---|---|---|",
    ]
    for name in ("responder", "replica", "wireguard"):
        cpu, memory = (getattr(costs, what).each for what in (name, f"{name}_memory"))
        lines.append(f"| {name} | {cpu / MICRO:.1f} us a second | {memory:,.0f} bytes |")
    lines += [
        "",
        f"A first contact costs the responders {costs.contact_responders / MICRO:,.0f} us and the "
        f"servers' wireguard-go {costs.contact_wireguard / MICRO:,.0f} us together; a change each "
        f"replica {costs.commit / MICRO:,.0f} us and {costs.log_bytes:,.0f} bytes of log. An agent "
        f"at rest sends {costs.bits_in.each:,.0f} bits a second to each server and gets "
        f"{costs.bits_out.each:,.0f}.",
    ]
    return "\n".join(lines)


def _needs(costs: Costs) -> str:
    lines = [
        "| agents | clusters of three | servers | each server: responder | replica "
        "| wireguard-go | memory | in | out | log | commits a second "
        "| responders a server, in one cluster |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for agents in FLEETS:
        found = plan(costs, Fleet(agents), MACHINE)
        load = found.load
        lines.append(
            f"| {agents:,.0f} | {found.clusters} | {found.servers} | {load.responder:.2f} cores "
            f"| {load.replica:.2f} | {load.wireguard:.2f} | {load.memory / 1e9:.1f} GB "
            f"| {load.bits_in / 1e6:.0f} Mbit/s | {load.bits_out / 1e6:.0f} "
            f"| {load.log_bytes * 3.6e-3:.1f} MB an hour | {load.commits:.1f} "
            f"| {found.responders} |"
        )
    return "\n".join(lines)


def _limits(costs: Costs) -> str:
    lines = [
        "| limit of one cluster | met by so many agents | were they at rest |",
        "|---|---|---|",
    ]
    busy, rest = (
        limits(costs, fleet, MACHINE)
        for fleet in (Fleet(1), Fleet(1, contacts_an_hour=0, peers_in_use=0, moves_a_day=0))
    )
    lines += [f"| {name} | {_many(most)} | {_many(rest[name])} |" for name, most in busy.items()]
    return "\n".join(lines)


def _many(agents: float) -> str:
    return "none" if agents == float("inf") else f"{agents:,.0f}"


def _checked(rows: Sequence[tuple[str, float, float]]) -> str:
    lines = [
        f"| with {CHECKED:,} agents | from the runs with {FITTED[0]} and {FITTED[1]:,} "
        "| measured | ratio |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {what} | {said:.3g} | {found:.3g} | {said / found:.2f} |" for what, said, found in rows
    ]
    return "\n".join(lines)


def write_csv(path: Path, costs: Costs) -> None:
    """Write one line a fleet."""

    def line(agents: float) -> list[object]:
        found: Plan = plan(costs, Fleet(agents), MACHINE)
        values = [f"{one:.6g}" for one in astuple(found.load)]
        head = [f"{agents:.0f}", found.clusters, found.servers, found.responders, found.first]
        return [*head, *values]

    names_of = ["agents", "clusters", "servers", "responders", "first", *names()]
    results.write_rows(path, names_of, map(line, FLEETS))


def draw(path: Path, costs: Costs) -> None:
    """Write how much of each limit is used by one cluster as PNG."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    sizes = [10 ** (3 + step / 10) for step in range(41)]
    fleet = Fleet(1)
    shares = [
        Load.of(costs, replace(fleet, agents=agents)).shares(costs, MACHINE) for agents in sizes
    ]
    for name in shares[0]:
        axes.plot(sizes, [one[name] for one in shares], label=name)
    axes.axhline(1.0, color="tab:red", linewidth=1)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(1e-3, 1e2)
    axes.set_xlabel("agents of one cluster")
    axes.set_title("used of each limit of a server (1: met)", fontsize="medium")
    axes.grid(visible=True, which="both", alpha=0.2)
    axes.legend()
    figure.savefig(path, dpi=100)


def main() -> int:
    """Compute, and write the results."""
    parser = results.parser(__doc__, "scale")
    parser.add_argument("--figures", type=Path, default=FOLDER, help="where the CSV files are")
    options = parser.parse_args()
    costs = Costs.read(options.figures, sizes=LINE)
    results.publish(options, tables(options.figures), costs, write_csv, draw)
    return 0


if __name__ == "__main__":
    sys.exit(main())
