"""What happened when, and its picture."""

from dataclasses import dataclass, field
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wgmap_chaos.flow import FlowRecord


@dataclass(frozen=True, slots=True)
class FirstContact:
    """One first packet to a peer without a tunnel; None: its reply never came."""

    at: float
    pair: str
    reply_ms: float | None


@dataclass
class Timeline:
    """Everything that was measured, by one clock (seconds)."""

    start: float
    contacts: list[FirstContact] = field(default_factory=list)
    flows: list[tuple[str, FlowRecord]] = field(default_factory=list)
    events: list[tuple[float, str]] = field(default_factory=list)

    def draw(self, path: Path) -> None:
        """Write the picture as PNG."""
        mpl.use("Agg")
        figure = Figure(figsize=(12, 6), layout="constrained")
        axes = figure.subplots()
        for name, record in self.flows:
            self._draw_flow(axes, name, record)
        self._draw_contacts(axes)
        for at, text in self.events:
            axes.axvline(at - self.start, color="tab:red", linewidth=1, alpha=0.6)
            axes.annotate(
                text, (at - self.start, 1), xycoords=("data", "axes fraction"), rotation=90,
                ha="right", va="top", fontsize=8, color="tab:red",
            )  # fmt: skip
        axes.set_yscale("log")
        axes.set_xlabel("seconds since the lab stood")
        axes.set_ylabel("round trip, ms (log)")
        axes.set_title("Tunnels on demand: first contacts, flows and faults")
        axes.grid(visible=True, which="both", alpha=0.2)
        axes.legend(loc="lower left", fontsize=8)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=110)

    def _draw_flow(self, axes: Axes, name: str, record: FlowRecord) -> None:
        trips = [(at - self.start, trip) for at, trip in record.round_trips_ms()]
        alive = [(at, trip) for at, trip in trips if trip is not None]
        lost = [at for at, trip in trips if trip is None]
        axes.plot(
            [at for at, _ in alive], [trip for _, trip in alive], ".", markersize=2,
            label=f"{name}: {len(record.sent)} packets, {record.lost} lost, "
            f"longest gap {record.longest_gap_s * 1e3:.0f} ms",
        )  # fmt: skip
        if lost:
            axes.plot(lost, [0.05] * len(lost), "|", color="tab:red", label=f"{name}: lost")

    def _draw_contacts(self, axes: Axes) -> None:
        done = [(c.at - self.start, c.reply_ms) for c in self.contacts if c.reply_ms is not None]
        axes.plot(
            [at for at, _ in done], [reply for _, reply in done], "^", color="black",
            markersize=7, label="first contact: time of the first reply",
        )  # fmt: skip
