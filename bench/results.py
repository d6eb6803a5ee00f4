"""What becomes of the figures of a bench: printed, kept as CSV and picture, put into a document."""

import argparse
import csv
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

Found = TypeVar("Found")


def parser(what: str | None, name: str) -> argparse.ArgumentParser:
    """Make a parser of a bench's options, with those that ``publish`` goes by.

    ``what``: the docstring of the bench; ``name``: that of its files, and of its section in a
    document.
    """
    made = argparse.ArgumentParser(description=what)
    made.set_defaults(name=name)
    made.add_argument("--out", type=Path, help=f"a folder for {name}.csv and {name}.png")
    made.add_argument("--document", type=Path, help="put the tables into its section as well")
    return made


def publish(
    options: argparse.Namespace,
    text: str,
    found: Found,
    write: Callable[[Path, Found], None],
    draw: Callable[[Path, Found], None],
) -> None:
    """Print the tables, and do with what was found what the options say; raises OSError."""
    print(text)
    keep(options, found, write)
    if options.out:
        draw(options.out / f"{options.name}.png", found)
    if options.document:
        replace_between(options.document, options.name, text)


def keep(options: argparse.Namespace, found: Found, write: Callable[[Path, Found], None]) -> None:
    """Write the CSV file alone: what was measured so far stays, whatever happens then."""
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        write(options.out / f"{options.name}.csv", found)


def write_rows(path: Path, names: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows(rows)


def markdown(head: str, rows: Iterable[Iterable[str]]) -> str:
    """Write a table; ``head``: the titles of its columns, with " | " between them."""
    rule = "|".join("---" for _ in head.split(" | "))
    lines = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([f"| {head} |", f"|{rule}|", *lines])


def replace_between(path: Path, name: str, text: str) -> None:
    """Put ``text`` between the comments ``<!-- NAME -->`` and ``<!-- /NAME -->`` of a file."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    old = path.read_text()
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if not pattern.search(old):
        msg = f"{path}: no {begin} and {end}"
        raise ValueError(msg)
    path.write_text(pattern.sub(lambda _: f"{begin}\n{text}\n{end}", old))


def quantile(values: Sequence[float], part: float) -> float:
    """Return the smallest value that at least ``part`` of them do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -int(-part * len(ordered) // 1) - 1))]
