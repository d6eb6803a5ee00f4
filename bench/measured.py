"""Figures of a measurement as a long table: one value a line, so that a model can read them."""

import csv
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from pathlib import Path


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


def write(path: Path, values: Iterable[Value]) -> None:
    """Write a CSV file."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([field.name for field in fields(Value)])
        for one in values:
            *rest, value, unit, window = astuple(one)
            writer.writerow([*rest, f"{value:.6g}", unit, window])


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
