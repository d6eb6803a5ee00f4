"""Figures of a measurement as a long table: one value a line, so that a model can read them."""

import csv
import sys
from collections.abc import Iterable
from dataclasses import astuple, dataclass, field, fields
from pathlib import Path

from results import write_rows


@dataclass(frozen=True, slots=True)
class Value:
    """One figure; ``unit`` is that of ``value``."""

    phase: str
    peers: int
    process: str
    figure: str
    value: float
    unit: str = ""
    window: int = 0


@dataclass
class Notes:
    """The figures of a measurement, as they come."""

    values: list[Value] = field(default_factory=list)

    def note(  # noqa: PLR0913  # the fields of a value
        self,
        phase: str,
        peers: int,
        process: str,
        figure: str,
        value: float,
        unit: str = "",
        *,
        window: int = 0,
    ) -> None:
        """Keep a figure, and show it while the bench goes on (but what the crowd itself uses)."""
        self.values.append(Value(phase, peers, process, figure, value, unit, window))
        if process != "crowd":
            of = f"{phase}: {peers} peers, window {window}: {process}"
            print(f"{of}: {figure}: {value:.4g} {unit}", file=sys.stderr, flush=True)


def write(path: Path, values: Iterable[Value]) -> None:
    """Write a CSV file."""
    rows = ((*rest, f"{value:.6g}", unit, window)
            for *rest, value, unit, window in map(astuple, values))  # fmt: skip
    write_rows(path, [one.name for one in fields(Value)], rows)


def read(path: Path) -> list[Value]:
    """Read what ``write`` wrote."""
    with path.open(newline="") as file:
        return [
            Value(
                row["phase"], int(row["peers"]), row["process"], row["figure"],
                float(row["value"]), row["unit"], int(row["window"]),
            )
            for row in csv.DictReader(file)
        ]  # fmt: skip


def pick(values: Iterable[Value], **wanted: object) -> list[Value]:
    """Return the values whose fields are these."""
    return [one for one in values if all(getattr(one, k) == v for k, v in wanted.items())]


def only(values: Iterable[Value], **wanted: object) -> float:
    """Return the one value whose fields are these; raises LookupError."""
    found = pick(values, **wanted)
    if len(found) != 1:
        msg = f"{len(found)} values with {wanted}"
        raise LookupError(msg)
    return found[0].value
