"""Keeps other people's work on the machine from being measured along.

Everything that is compared gets the same priority: ours, the floor, and whatever else.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from wgmap_chaos.lab.inventory import Inventory

NICE = -15


def of_lab(lab: Inventory) -> list[int]:
    """Return the processes of a lab."""
    pids = [pid for host in lab.hosts for pid in (*host.pids.values(), *host.wireguard.values())]
    return [pid for pid in pids if pid is not None]


def favour(pids: Iterable[int]) -> None:
    """Raise processes over the usual ones; what has ended meanwhile is left out."""
    for pid in pids:
        # Each session is weighed as one, if the kernel is so configured: then nice alone is not
        # enough (sched(7), autogroup).
        group = Path(f"/proc/{pid}/autogroup")
        try:
            for thread in Path(f"/proc/{pid}/task").iterdir():
                os.setpriority(os.PRIO_PROCESS, int(thread.name), NICE)
            if group.exists():
                group.write_text(f"{NICE}")
        except (FileNotFoundError, ProcessLookupError):
            continue
