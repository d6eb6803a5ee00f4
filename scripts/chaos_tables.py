"""Write the tables of docs/evaluation/chaos.md from what was kept of runs and of planted bugs.

``docs/evaluation/chaos/runs.jsonl`` has a line of each run (its ``entry.jsonl``), ``mutants.jsonl``
one of each run of a planted bug (``.chaos/mutants.jsonl``). ``--check`` writes nothing and ends
with 1 where the document is not what would be written.
"""

import json
import re
import sys
from pathlib import Path

from wgmap_chaos.report import ledger, writing
from wgmap_chaos.report.ledger import Entry

FOLDER = Path(__file__).resolve().parent.parent / "docs/evaluation"
DOCUMENT = FOLDER / "chaos.md"
RUNS, MUTANTS = FOLDER / "chaos/runs.jsonl", FOLDER / "chaos/mutants.jsonl"
_PLACE = re.compile(r"(<!-- made: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def totals(entries: list[Entry]) -> str:
    """Say how much was run and judged, and how much of it held."""
    judged = [one for one in entries if not one.broke_off]
    held = [one for one in judged if one.held]
    seeds = len({one.run.seed for one in judged})
    hours, clean = (sum(one.run.minutes for one in some) / 60 for some in (judged, held))
    sizes = ", ".join(f"{size}" for size in sorted({one.run.servers for one in judged}))
    return (
        f"{len(judged)} runs over {seeds} seeds, {hours:.2f} hours under faults, {sizes} servers;"
        f" {len(held)} of them ({clean:.2f} hours) held whole. {len(entries) - len(judged)} more"
        " broke off and do not count.\n"
    )


def bugs() -> str:
    """Return the last run of each planted bug."""
    if not MUTANTS.exists():
        return "None was run on the present code.\n"
    results = [json.loads(line) for line in MUTANTS.read_text().splitlines()]
    last = {one["mutant"]: one for one in results}
    rows = ["| bug | commit | seed | run (s) | judge | what it said |", "|---|---|---|---|---|---|"]
    for one in last.values():
        said = (one["said"] or "**nothing**").replace("|", "\\|")
        cells = (one["mutant"], one["commit"], one["seed"], one["took_s"], one["judge"], said)
        rows.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(rows) + "\n"


def written(text: str) -> str:
    """Return the document with its tables made anew."""
    entries = ledger.read([RUNS])
    made = {
        "totals": totals(entries),
        "runs": writing.run_table(entries),
        "gaps": writing.gap_table(entries),
        "bugs": bugs(),
    }
    return _PLACE.sub(lambda found: f"{found[1]}\n{made[found[2]]}\n{found[3]}", text)


def main(arguments: list[str]) -> int:
    """Write, or check."""
    text = DOCUMENT.read_text()
    fresh = written(text)
    if arguments == ["--check"]:
        return int(fresh != text)
    DOCUMENT.write_text(fresh)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
