"""``make test-matrix``: every fault at every delay and lateness; exit code 0 only if all held."""

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path

from wgmap.errors import ExitCode, WgmapError
from wgmap_chaos.contacts import report
from wgmap_chaos.contacts.contact import Contact, Contacts, limit_ms
from wgmap_chaos.contacts.faults import FAULTS, Fault
from wgmap_chaos.contacts.report import Cell
from wgmap_chaos.lab import commands
from wgmap_chaos.lab.relay import Quality

DELAYS_MS = (0.0, 2.0, 20.0, 80.0)  # one way
LATE_MS = (0.0, 10.0, 50.0, 100.0)
RESTARTS = {"the destination just restarted": False, "the destination's key just changed": True}
LOSSY_REPEATS = 5  # chance has more faces than the other faults


def main() -> int:
    """Bring a lab up, run the matrix, write the section, take the lab down."""
    parser = argparse.ArgumentParser(prog="python -m wgmap_chaos.contacts", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/evaluation/first-contact.md"))
    parser.add_argument("--only", default="", help="faults whose name has this")
    parser.add_argument("--delay", type=float, nargs="*", default=DELAYS_MS, help="one way, ms")
    parser.add_argument("--late", type=float, nargs="*", default=LATE_MS, help="pushes, ms")
    parser.add_argument("--repeat", type=int, default=2, help="contacts in each cell")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="wgmap-contacts-") as name:
        directory = Path(name)
        try:
            commands.up(directory, servers=3, agents=2, quality=Quality())
            cells = list(_cells(Contacts(directory), options))
        except WgmapError as error:
            print(f"the matrix broke off: {error}", file=sys.stderr)
            return error.exit_code
        finally:
            commands.down(directory)
    report.write(options.out, report.section(cells, _conditions()))
    print(f"written: {options.out}")
    return ExitCode.OK if all(cell.held for cell in cells) else ExitCode.FAILED


def _conditions() -> str:
    return (
        "What `make test-matrix` saw: three servers, two agents, wireguard-go in network namespaces"
        f" of one machine with {os.cpu_count()} processors; an application that sends every 100 ms"
        " to a destination that it has no tunnel to. A contact counts only where the fault's own"
        " counter says that it took exactly the packets that it is for. The limit is 1 s and four"
        " round trips, beside what the push or the answer is late by; with random loss, where two"
        " losses may meet in one contact, it is 2 s. Where no data packet is lost on the way, every"
        " packet that was sent before the first answer must be answered too."
    )


def _cells(contacts: Contacts, options: argparse.Namespace) -> Iterator[Cell]:
    faults = [name for name in FAULTS if options.only in name]
    restarts = {name: new_key for name, new_key in RESTARTS.items() if options.only in name}
    for delay_ms in options.delay:
        for late_ms, name in product(options.late, faults):
            yield _shown(_cell(contacts, name, delay_ms, late_ms, options.repeat))
        for name, new_key in restarts.items():
            yield _shown(_restart(contacts, name, delay_ms, new_key=new_key))


def _cell(contacts: Contacts, name: str, delay_ms: float, late_ms: float, repeat: int) -> Cell:
    fault = FAULTS[name]
    contacts.set(delay_ms, late_ms, fault.loss_percent)
    made = [contacts.make(fault) for _ in range(repeat * (LOSSY_REPEATS if _lossy(fault) else 1))]
    counted = [one for one in made if one.effective]
    return Cell(
        name,
        delay_ms,
        late_ms,
        [reply for one in counted for reply in _replies(one)],
        limit_ms(delay_ms, late_ms, fault),
        len(made) - len(counted),
        max(counted, key=lambda one: one.worst_ms).repairs() if counted else "",
        0 if _lossy(fault) else sum(one.lost for one in counted),
        sum(one.overtaken for one in counted),
    )


def _lossy(fault: Fault) -> bool:
    return fault.loss_percent > 0


def _replies(contact: Contact) -> Iterator[float]:
    for reply in contact.reply_ms:
        yield float("inf") if reply is None else reply


def _restart(contacts: Contacts, name: str, delay_ms: float, *, new_key: bool) -> Cell:
    contacts.set(delay_ms)
    reply = contacts.restart_target(new_key=new_key)
    replies = [float("inf") if reply is None else reply]
    return Cell(name, delay_ms, 0.0, replies, limit_ms(delay_ms, 0.0, Fault()), 0, "")


def _shown(cell: Cell) -> Cell:
    replies = " ".join(f"{reply:.0f}" for reply in cell.replies_ms)
    held = "ok  " if cell.held else "FAIL"
    print(
        f"{held} {cell.delay_ms:3g} ms, push {cell.late_ms:3g} ms late, {cell.fault}: {replies} ms"
        f" {cell.repairs}{f', {cell.lost} held packets lost' if cell.lost else ''}"
        f"{f', {cell.overtaken} overtaken' if cell.overtaken else ''}",
        flush=True,
    )
    return cell


if __name__ == "__main__":
    sys.exit(main())
