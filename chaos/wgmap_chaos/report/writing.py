"""The page and the summary of one run, and the table of many."""

import base64
import html
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from wgmap_chaos.history.history import History
from wgmap_chaos.judges.verdict import Verdict
from wgmap_chaos.report import figures, ledger
from wgmap_chaos.report.ledger import Entry

PAGE, SUMMARY, PLOT = "report.html", "summary.md", "over-time.png"
Table = Sequence[Sequence[str]]  # the first row is the head
MOST_SHOWN = 20  # of one judge
_STYLE = (
    "body{font:15px sans-serif;max-width:1200px;margin:2em auto;padding:0 1em}"
    "table{border-collapse:collapse;margin:1em 0}td,th{border:1px solid #bbb;padding:.3em .6em;"
    "text-align:left}img{width:100%}pre{background:#eee;padding:.7em;overflow-x:auto}"
    ".held{background:#dfd}.BROKEN{background:#fcc}"
)


def write(history: History, verdicts: Sequence[Verdict], out: Path) -> None:
    """Write page, summary and plot into a directory; raises OSError."""
    from wgmap_chaos.report import plots  # noqa: PLC0415  # half a second that only this needs

    plots.over_time(history, out / PLOT)
    ledger.write(out / ledger.NAME, ledger.entry(history, verdicts))
    (out / SUMMARY).write_text(_markdown(history, verdicts))
    (out / PAGE).write_text(_page(history, verdicts, (out / PLOT).read_bytes()))


def gap_table(entries: Iterable[Entry]) -> str:
    """Return the failover gaps over many runs, as Markdown."""
    return _as_markdown(_gaps(gap for entry in entries for gap in entry.gaps))


def run_table(entries: Iterable[Entry]) -> str:
    """Return what was run and what came of it, a line each, as Markdown."""
    head = (
        *("commit", "seed", "servers", "agents", "minutes", "load"),
        *("faults", "calls", "verdict"),
    )
    return _as_markdown([head, *map(_run_row, entries)])


def _run_row(entry: Entry) -> Sequence[str]:
    run = entry.run
    failed = [f"{one.judge}: {one.word}" for one in entry.verdicts if one.word != "held"]
    failed += [f"broke off: {entry.broke_off}"] if entry.broke_off else []
    sizes = (f"{run.seed}", f"{run.servers}", f"{run.agents}", f"{run.minutes:g}")
    counts = (f"{run.load:.0f}", f"{entry.faults}", f"{entry.calls}")
    return (run.commit, *sizes, *counts, ", ".join(failed) or "held")


# ---------------------------------------------------------------------------------- tables


def _verdicts(verdicts: Sequence[Verdict]) -> Table:
    rows = [(one.judge, one.word, f"{one.looked_at} {one.what}") for one in verdicts]
    return [("judge", "verdict", "looked at"), *rows]


def _latencies(history: History) -> Table:
    head = ("call", "calls", "unanswered", "median", "90 %", "99 %", "worst")
    rows = [
        (one.op.value, f"{one.calls}", f"{one.unanswered}", *map(_ms, one.quantiles_ms))
        for one in figures.latencies(history)
    ]
    return [head, *rows]


def _gaps(gaps: Iterable[figures.Gap]) -> Table:
    head = (
        *("fault", "times", "client late"),
        *("lookups", "registers", "refreshes", "first contacts", "data flows"),
    )
    rows = [
        (one.fault, f"{one.times}", *(_pair(value) for value in one.gaps.values()))
        for one in figures.summaries(gaps)
    ]
    return [head, *rows]


def _broken(verdicts: Sequence[Verdict]) -> list[str]:
    return [f"{one.judge}: {text}" for one in verdicts for text in one.broken[:MOST_SHOWN]]


def _title(history: History) -> str:
    run = history.run
    sizes = f"{run.servers} servers, {run.agents} agents, {run.lights} light clients"
    return f"Chaos: seed {run.seed}, {run.minutes:g} minutes, {sizes}, commit {run.commit}"


def _ms(value: float) -> str:
    return f"{value:.0f} ms" if value < 1000 else f"{value / 1000:.1f} s"


def _s(value: float) -> str:
    return "never" if math.isinf(value) else f"{value:.2f}"


def _pair(value: tuple[float, float] | None) -> str:
    return "" if value is None else f"{_s(value[0])} / {_s(value[1])}"


GAPS_MEAN = (
    "Faults that came alone, in seconds: median / worst. Lookups, registers, refreshes: the longest"
    " time without an answer to anybody that overlaps the fault; the probes call at fixed"
    " intervals, and how late they were themselves stands before. First contacts: the slowest that"
    " was begun in it. Data flows: the longest run of lost packets."
)

# ----------------------------------------------------------------------------------- forms


def _as_markdown(table: Table) -> str:
    head, *rows = table
    lines = [_row(head), "|" + "---|" * len(head), *map(_row, rows)]
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown(history: History, verdicts: Sequence[Verdict]) -> str:
    broken = "".join(f"- {text}\n" for text in _broken(verdicts))
    return "\n".join(
        [
            f"# {_title(history)}\n",
            f"    {history.run.command}\n",
            _as_markdown(_verdicts(verdicts)),
            broken,
            f"![over time]({PLOT})\n",
            "## Latencies\n",
            _as_markdown(_latencies(history)),
            "## Failover\n",
            f"{GAPS_MEAN}\n",
            _as_markdown(_gaps(figures.gaps(history))),
        ]
    )


def _page(history: History, verdicts: Sequence[Verdict], picture: bytes) -> str:
    title = html.escape(_title(history))
    broken = "".join(f"<li>{html.escape(text)}</li>" for text in _broken(verdicts))
    image = base64.b64encode(picture).decode()
    parts = [
        f"<!doctype html><meta charset=utf-8><title>{title}</title><style>{_STYLE}</style>",
        f"<h1>{title}</h1><pre>{html.escape(history.run.command)}</pre>",
        _as_html(_verdicts(verdicts)),
        f"<ul>{broken}</ul>" if broken else "",
        f'<img alt="over time" src="data:image/png;base64,{image}">',
        "<h2>Latencies</h2>",
        _as_html(_latencies(history)),
        f"<h2>Failover</h2><p>{GAPS_MEAN}</p>",
        _as_html(_gaps(figures.gaps(history))),
    ]
    return "\n".join(parts) + "\n"


def _as_html(table: Table) -> str:
    head, *rows = table
    lines = ["<tr>" + "".join(f"<th>{html.escape(cell)}</th>" for cell in head) + "</tr>"]
    for row in rows:
        cells = "".join(
            f'<td class="{html.escape(cell) if cell in ("held", "BROKEN") else ""}">'
            f"{html.escape(cell)}</td>"
            for cell in row
        )
        lines.append(f"<tr>{cells}</tr>")
    return f"<table>{''.join(lines)}</table>"
