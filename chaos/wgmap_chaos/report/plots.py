"""The pictures of a report."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wgmap_chaos.history.history import History
from wgmap_chaos.history.records import Op, Outcome
from wgmap_chaos.report import figures

STEP_S = 1.0
OPS = {Op.LOOKUP: "tab:blue", Op.REGISTER: "tab:green", Op.REFRESH: "tab:purple"}
_NAMED = 40  # with more faults their names would cover each other


def over_time(history: History, path: Path) -> None:
    """Draw answers a second, how long they took, and losses of flows, with faults behind."""
    figure = Figure(figsize=(14, 9), layout="constrained")
    rates, times, flows = figure.subplots(3, 1, sharex=True)
    for axes in (rates, times, flows):
        _faults(history, axes, named=axes is rates)
    _rates(history, rates)
    _times(history, times)
    _flows(history, flows)
    flows.set_xlabel("seconds since the begin")
    figure.savefig(path, dpi=110)


def _faults(history: History, axes: Axes, *, named: bool) -> None:
    begun = history.run.begun
    for number, fault in enumerate(history.faults):
        since, until = fault.begun - begun, fault.healed - begun
        axes.axvspan(since, until, color="tab:red" if fault.data else "tab:orange", alpha=0.18)
        if named and len(history.faults) <= _NAMED:
            height = 0.98 - 0.12 * (number % 2)
            place = axes.get_xaxis_transform()
            axes.text(since, height, fault.name, transform=place, rotation=90, va="top", fontsize=7)


def _rates(history: History, axes: Axes) -> None:
    for op, color in OPS.items():
        points = figures.rates(history.of(op, Outcome.OK), history.run.begun, STEP_S)
        axes.plot(*zip(*points, strict=True) if points else ([], []), color=color, label=op.value)
    axes.set_ylabel("answers a second")
    axes.legend(loc="upper right")


def _times(history: History, axes: Axes) -> None:
    for op, color in OPS.items():
        calls = [call for call in history.of(op, Outcome.OK) if call.ended is not None]
        x = [call.begun - history.run.begun for call in calls]
        y = [(call.ended - call.begun) * 1e3 for call in calls if call.ended is not None]
        axes.plot(x, y, ".", markersize=2, color=color, label=op.value)
    axes.set_yscale("log")
    axes.set_ylabel("answered after (ms)")


def _flows(history: History, axes: Axes) -> None:
    for number, flow in enumerate(history.flows):
        times = [at - history.run.begun for at in flow.lost]
        axes.plot(times, [number] * len(times), "|", markersize=12, color="tab:red")
    axes.set_yticks(range(len(history.flows)), [flow.name for flow in history.flows])
    axes.set_ylim(-0.5, max(1, len(history.flows)) - 0.5)
    axes.set_ylabel("packets lost")
