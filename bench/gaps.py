"""The gap that lookups, registers and first contacts see while servers die and come back.

Three servers over a real mesh, killed by SIGKILL: the one that the agent prefers, the leader, a
majority. All the time a crowd asks every server, and registers a change at each of them, every 20
ms; an agent's host makes first contacts. A gap is the longest time without an answer of any server
(what asks at several is not served worse), less what it is without a fault; for first contacts it
is the longest that one took. Wants root. Prints Markdown, and writes CSV and PNG.
"""

import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path

import results
from agents.caller import Caller, Contacts
from crowd.members import members
from crowd.place import Crowd, crowd, enrol
from matplotlib.figure import Figure
from results import quantile

from wgmap.clock import now
from wgmap_chaos.failover.faults import all_killed
from wgmap_chaos.failover.ground import Ground
from wgmap_chaos.lab import commands
from wgmap_chaos.lab.inventory import ServerEntry
from wgmap_chaos.lab.relay import Quality
from wgmap_chaos.priority import favour, of_lab

CASES = ("nobody", "the preferred one", "the leader", "a majority")
KINDS = {"lookups": "lookups", "sure": "lookups with authority", "registers": "registers"}
PERIOD_S = 0.02
BEFORE_S, DEAD_S, AFTER_S = 1.5, 3.0, 5.0
CONTACT_S = 0.1  # between two first contacts
WATCHING = 4  # members that ask and register


@dataclass(frozen=True, slots=True)
class Case:
    """One case, once: times in seconds of one clock."""

    case: str
    delay_ms: float
    died: float
    back: float  # when those that were killed were started again, and served
    answers: dict[str, list[float]]  # of any server, by kind
    contacts: Contacts

    def gap_ms(self, kind: str) -> float:
        """Return the longest time without an answer, from just before the death on."""
        times = [at for at in self.answers[kind] if at > self.died - 0.5]
        longest = max((b - a for a, b in pairwise(times)), default=float("nan"))
        return longest * 1e3

    def after_back_ms(self, kind: str) -> float:
        """Return how long after the return the first answer came; negative: it never ended."""
        first = next((at for at in self.answers[kind] if at > self.back), float("nan"))
        return (first - self.back) * 1e3


class Bench:
    """A lab with an agent and a crowd."""

    def __init__(self, ground: Ground, them: Crowd) -> None:
        self._ground, self._crowd = ground, them
        self._next = WATCHING

    def run(self, case: str, delay_ms: float) -> Case:
        """Have a case befall, and watch."""
        self._ground.settle()
        victims = self._victims(case)
        seconds = BEFORE_S + DEAD_S + AFTER_S
        count = int(seconds / CONTACT_S)
        eids = [one.eid for one in members(self._next, count)]
        self._next += count
        caller = Caller(self._ground.lab.agents[0].netns)
        with ThreadPoolExecutor(2) as pool:
            watching = pool.submit(self._crowd.watch, seconds, PERIOD_S)
            calling = pool.submit(caller.paced, eids, CONTACT_S)
            time.sleep(BEFORE_S)
            died, back = self._befall(victims)
            heard, contacts = watching.result(), calling.result()
        caller.close()
        favour([*of_lab(self._ground.lab)])
        answers = {kind: sorted(chain.from_iterable(heard[kind].values())) for kind in KINDS}
        return Case(case, delay_ms, died, back, answers, contacts)

    def _befall(self, victims: Sequence[ServerEntry]) -> tuple[float, float]:
        died = now()
        if not victims:
            return died, died
        with all_killed(self._ground.directory, victims):
            time.sleep(DEAD_S)
            started = now()
        return died, started

    def _victims(self, case: str) -> list[ServerEntry]:
        lab = self._ground.lab
        preferred = self._ground.preferred(lab.agents[0])
        leader = lab.server(self._ground.leader() or "")
        if case == "a majority":
            others = [one for one in lab.servers if one.name != preferred.name]
            return [preferred, others[0]]
        return {"the preferred one": [preferred], "the leader": [leader]}.get(case, [])


@contextmanager
def ground(delay_ms: float, cases: int) -> Iterator[Bench]:
    """Bring everything up, and down again."""
    with tempfile.TemporaryDirectory(prefix="wgmap-gaps-") as name:
        directory = Path(name)
        try:
            commands.up(directory, 3, 1, Quality(delay_ms, 0.0))
            place = Ground(directory)
            with crowd(directory, place.lab) as them:
                favour([os.getpid(), them.pid, *of_lab(place.lab)])
                seconds = BEFORE_S + DEAD_S + AFTER_S
                count = WATCHING + cases * int(seconds / CONTACT_S)
                enrol(place.lab, members(0, count))
                them.join(0, count)
                yield Bench(place, them)
        finally:
            commands.down(directory)


def table(found: Sequence[Case]) -> str:
    """Write medians and the worst of the turns."""
    titles = " | ".join(f"{title}: gap, median | worst" for title in KINDS.values())
    lines = [
        f"| delay, one way | killed | turns | {titles} | registers again after the return "
        "| first contacts: p50 | longest | lost |",
        "|---" * (3 + 2 * len(KINDS) + 4) + "|",
    ]
    for delay, case in dict.fromkeys((one.delay_ms, one.case) for one in found):
        turns = [one for one in found if (one.delay_ms, one.case) == (delay, case)]
        cells = []
        for kind in KINDS:
            gaps = [one.gap_ms(kind) for one in turns]
            cells += [f"{quantile(gaps, 0.5):.0f} ms", f"{max(gaps):.0f} ms"]
        contacts = Contacts()
        for turn in turns:
            contacts.took_ms += turn.contacts.took_ms
            contacts.lost += turn.contacts.lost
        back = quantile([one.after_back_ms("registers") for one in turns], 0.5)
        again = f"{back:.0f} ms" if case == "a majority" else "-"
        lines.append(
            f"| {delay:g} ms | {case} | {len(turns)} | {' | '.join(cells)} | {again} "
            f"| {contacts.part_ms(0.5):.1f} ms | {contacts.part_ms(1.0):.0f} ms "
            f"| {contacts.lost} of {len(contacts.took_ms) + contacts.lost} |"
        )
    return "\n".join(lines)


def write_csv(path: Path, found: Sequence[Case]) -> None:
    """Write one line a case."""
    gaps = (f"{kind}_gap_ms" for kind in KINDS)
    head = ["delay_ms", "killed", *gaps, "registers_back_ms", "contacts", "contact_p50_ms",
            "contact_max_ms", "contacts_lost"]  # fmt: skip

    def line(one: Case) -> list[object]:
        times = [one.gap_ms(kind) for kind in KINDS] + [one.after_back_ms("registers")]
        contacts = one.contacts
        times += [contacts.part_ms(0.5), contacts.part_ms(1.0)]
        *gaps, back, p50, longest = (f"{value:.6g}" for value in times)
        made = len(contacts.took_ms)
        return [one.delay_ms, one.case, *gaps, back, made, p50, longest, contacts.lost]

    results.write_rows(path, head, map(line, found))


def draw(path: Path, found: Sequence[Case]) -> None:
    """Write when answers came around each death, the first turn of each case, as PNG."""
    shown = {(one.delay_ms, one.case): one for one in reversed(found)}
    shown = dict(sorted(shown.items(), key=lambda one: (one[0][0], CASES.index(one[0][1]))))
    figure = Figure(figsize=(11, 1.4 * len(shown)), layout="constrained")
    rows = figure.subplots(len(shown), 1, squeeze=False)[:, 0]
    for axes, ((delay, case), one) in zip(rows, shown.items(), strict=True):
        for height, kind in enumerate(KINDS):
            times = [at - one.died for at in one.answers[kind]]
            axes.plot(times, [height] * len(times), "|", markersize=7)
        axes.axvline(0, color="tab:red", linewidth=1)
        axes.axvline(one.back - one.died, color="tab:green", linewidth=1)
        axes.set_yticks(range(len(KINDS)), list(KINDS.values()))
        axes.set_xlim(-BEFORE_S, DEAD_S + AFTER_S - 1)
        axes.set_title(f"killed: {case}, {delay:g} ms one way", fontsize=9, loc="left")
    figure.suptitle("Answers of any server; red: killed, green: started again (seconds)")
    figure.savefig(path, dpi=90)


def main() -> int:
    """Measure, and write the results."""
    parser = results.parser(__doc__, "gaps")
    parser.add_argument("--delay", type=float, nargs="+", default=[0.0, 20.0], metavar="MS")
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    found: list[Case] = []
    for delay in options.delay:
        with ground(delay, len(CASES) * options.turns) as bench:
            for case in CASES * options.turns:
                found.append(bench.run(case, delay))
                results.keep(options, found, write_csv)
                print(table(found[-1:]).splitlines()[-1], file=sys.stderr, flush=True)
    results.publish(options, table(found), found, write_csv, draw)
    return 0


if __name__ == "__main__":
    sys.exit(main())
