"""The matrix as a section of a document that has other sections."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

TITLE = "# First contact\n"
_BEGIN, _END = "<!-- faults: begin -->\n", "<!-- faults: end -->\n"


@dataclass(frozen=True, slots=True)
class Cell:
    """The contacts of one fault, delay and lateness."""

    fault: str
    delay_ms: float
    late_ms: float
    replies_ms: Sequence[float]  # of every side of every contact; infinite: none came
    limit_ms: float
    ineffective: int  # contacts that do not count: the fault had not taken what it is for
    repairs: str  # of the slowest
    lost: int = 0  # packets that were sent before the first one that was answered, and never were
    overtaken: int = 0  # and those that were answered behind it

    @property
    def held(self) -> bool:
        """Whether every contact that counts kept within the limit and lost nothing."""
        return bool(self.replies_ms) and max(self.replies_ms) <= self.limit_ms and not self.lost


def section(cells: Sequence[Cell], conditions: str) -> str:
    """Write the section."""
    delays = sorted({cell.delay_ms for cell in cells})
    head = "".join(f" {delay:g} ms |" for delay in delays)
    lines = [
        "## Faults",
        "",
        conditions,
        "",
        "Worst first reply in ms, by the one-way delay; in brackets how many first replies.",
        "",
        f"| fault | push late by |{head}",
        f"|---|---|{'---|' * len(delays)}",
    ]
    rows = dict.fromkeys((cell.fault, cell.late_ms) for cell in cells)
    for fault, late in rows:
        by_delay = {c.delay_ms: c for c in cells if (c.fault, c.late_ms) == (fault, late)}
        texts = "".join(f" {_text(by_delay.get(delay))} |" for delay in delays)
        lines.append(f"| {fault} | {late:g} ms |{texts}")
    return "\n".join([*lines, "", *_conclusion(cells), ""])


def _text(cell: Cell | None) -> str:
    if cell is None:
        return ""
    if not cell.replies_ms:
        return "(no effect)"
    text = f"{max(cell.replies_ms):.0f} ({len(cell.replies_ms)})"
    return text if cell.held else f"**{text}**"


def _conclusion(cells: Sequence[Cell]) -> Iterable[str]:
    replies = [reply for cell in cells for reply in cell.replies_ms]
    failed = [cell for cell in cells if not cell.held]
    yield (
        f"{len(replies)} first replies, the worst after {max(replies, default=0):.0f} ms; "
        f"{len(failed)} of {len(cells)} cells beyond their limit (in bold) or without effect; "
        f"{sum(cell.ineffective for cell in cells)} contacts did not count, because the fault "
        f"had not taken what it is for; {sum(cell.lost for cell in cells)} held packets lost, "
        f"{sum(cell.overtaken for cell in cells)} overtaken by a later one."
    )
    for cell in failed:
        yield (
            f"- beyond: {cell.fault}, delay {cell.delay_ms:g} ms, late {cell.late_ms:g} ms: "
            f"{_text(cell)}; {cell.repairs or 'no repair'}; {cell.lost} held packets lost"
        )


def write(path: Path, text: str) -> None:
    """Put the section into the document, in place of the one that is there; raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    old = path.read_text() if path.exists() else TITLE
    before, begin, rest = old.partition(_BEGIN)
    after = rest.partition(_END)[2] if begin else ""
    gap = "" if begin else "\n"
    path.write_text(f"{before}{gap}{_BEGIN}{text}{_END}{after}")
