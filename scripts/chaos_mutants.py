"""Plant a bug in a copy of the product, let chaos run over it, and see the judge that must notice.

Each mutant is a copy of the packages with a few characters changed, run with the faults that can
bring it to light. It is caught where the judge that is named says so. Before all of them the
product as it is runs with every fault that is used, and must pass. Run by ``make chaos-mutants``;
``ONLY=words`` for some. Exit code 1 if one survives, or the product as it is does not hold.

What came out is added to ``.chaos/mutants.jsonl`` (scripts/chaos_tables.py).
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("cluster", "agent", "common", "chaos")
CHAOS = ROOT / ".venv/bin/wgmap-chaos"
RESULTS = ROOT / ".chaos/mutants.jsonl"
SEEDS = (1, 2)  # whether a fault hurts is a matter of luck
# Shorter than usual, and with less load: what is planted shows all the same.
SCENARIO = """
[run]
warm_s = 5.0
[load]
lights = 60
askers = 8
registers = 12.0
probes = 5.0
[bounds]
converge_s = 25.0
[faults]
kinds = [{kinds}]
hold_s = [3.0, 6.0]
calm_s = [1.0, 3.0]
"""
TIMEOUT_S = 900.0
ON_MS2 = 'any("ms2" in word for word in __import__("sys").argv)'


@dataclass(frozen=True)
class Mutant:
    """``old`` becomes ``new``; ``judge`` is to notice, with these kinds of faults."""

    name: str
    judge: str
    kinds: tuple[str, ...]
    file: str = ""
    old: str = ""
    new: str = ""
    minutes: float = 0.7


MUTANTS = (
    Mutant(
        "acknowledge before commit",
        "durability",
        ("cut the leader off", "the leader is mute"),
        "cluster/wgmap_cluster/replica/registrations.py",
        "            proposal = await self._proposed(lane)\n",
        "            first = lane.current.admitted\n"
        "            early = Registered(first.peer, Taken.APPLIED, first.command.nonce, ())\n"
        "            self._answer(lane.current, early)\n"
        "            proposal = await self._proposed(lane)\n",
    ),
    Mutant(
        "serve while stale as authoritative",
        "staleness",
        ("cut a server off", "cut the leader off"),
        "cluster/wgmap_cluster/responder/follower.py",
        "return now < self.lease_until",
        "return self.lease_until > 0 * now",
    ),
    Mutant(
        "forget one fsync",
        "durability",
        ("the power goes",),
        "cluster/wgmap_cluster/raft/disk.py",
        "            os.fdatasync(self._fd)",
        "            pass",
    ),
    Mutant(
        "ignore revocation on one server",
        "revocation",
        ("kill a responder",),
        "cluster/wgmap_cluster/responder/table.py",
        "        old = self.mapping(place)\n        if old is not None and (",
        f"        old = self.mapping(place)\n        if row is None and {ON_MS2}:\n"
        "            return\n        if old is not None and (",
    ),
    Mutant(
        "no re-registration after a move",
        "convergence",
        ("an agent moves",),
        "agent/wgmap_agent/engine/registration.py",
        "            return []  # the old mapping stays",
        "            return []  # the old mapping stays\n"
        "        if self._records and self._acknowledged is not None:\n            return []\n#",
    ),
    Mutant(
        "unbounded cache",
        "health",
        ("kill a replica",),
        "cluster/wgmap_cluster/responder/requests.py",
        "        fresh = until is not None or self._follower.is_fresh(now)\n",
        '        self.__dict__.setdefault("cache", []).append(data * 2000)\n'
        "        fresh = until is not None or self._follower.is_fresh(now)\n",
        minutes=1.5,
    ),
    Mutant(
        "drop pushes",
        "pushes",
        ("an agent moves",),  # whoever asked is told in the calm: no server may be hurt
        "cluster/wgmap_cluster/responder/announcer.py",
        "        agents = self._subscriptions.of(subject, now)\n        if not agents:",
        "        agents: list[str] = []\n        if not agents:",
        minutes=0.4,
    ),
    Mutant(
        "nonce order ignored",
        "linearizability",
        ("kill the leader", "cut the leader off"),
        "cluster/wgmap_cluster/fsm/registration.py",
        "    return Taken.APPLIED if command.nonce > last.nonce else Taken.OLDER",
        "    return Taken.APPLIED",
    ),
    Mutant(
        "a refresh asks nobody",
        "linearizability",
        ("cut the leader off", "cut a server off"),
        "cluster/wgmap_cluster/responder/requests.py",
        "            if asked.refresh:\n",
        "            if asked.refresh and not asked:\n",
    ),
    Mutant(
        "time is the wall clock's",
        "convergence",  # whose clock went back waits for as long with all that it does
        ("clocks jump apart",),
        "common/wgmap/clock.py",
        "time.clock_gettime(time.CLOCK_BOOTTIME)",
        "time.clock_gettime(time.CLOCK_REALTIME)",
    ),
    Mutant(
        "an agent that starts adopts no tunnel",
        "data flows",
        ("kill an agent",),
        "agent/wgmap_agent/engine/watch.py",
        "if one.key in plane.data.peers or not self._is_adoptable(one):",
        "if one.key:",
    ),
    Mutant(
        "a responder that ends now and then",
        "health",
        ("kill a follower",),
        "cluster/wgmap_cluster/responder/requests.py",
        "        fresh = until is not None or self._follower.is_fresh(now)\n",
        "        if int(now) % 47 == 0:\n            raise SystemExit(3)\n"
        "        fresh = until is not None or self._follower.is_fresh(now)\n",
    ),
)


KINDS = tuple(sorted({kind for mutant in MUTANTS for kind in mutant.kinds}))
UNCHANGED = Mutant("the product as it is", "", KINDS, minutes=2.0)


def run(mutant: Mutant, seed: int, base: Path) -> str | None:
    """Return what the judge said, None if the mutant survives this seed."""
    environment = dict(os.environ)
    if mutant.file:
        planted = plant(mutant, base)
        environment["PYTHONPATH"] = ":".join(str(base / each) for each in PACKAGES)
        if not planted:
            return "ERROR: the lines are not there exactly once"
    scenario = base / "scenario.toml"
    kinds = ", ".join(f'"{kind}"' for kind in mutant.kinds)
    scenario.write_text(SCENARIO.format(kinds=kinds))
    sizes = ["--servers", "3", "--agents", "3", "--minutes", str(mutant.minutes)]
    argv = [
        CHAOS,
        "run",
        "--scenario",
        scenario,
        "--seed",
        str(seed),
        *sizes,
        "--out",
        base / "out",
    ]
    done = subprocess.run(  # noqa: S603  # our own program
        argv, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    if not (base / "out/report.html").exists():
        return f"ERROR: the run broke off: {done.stderr.strip()[-300:]}"
    return found(mutant, base / "out/history.jsonl")


def plant(mutant: Mutant, base: Path) -> bool:
    """Copy the packages and change one; False where the lines are not there exactly once."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, base / package)
    path = base / mutant.file
    source = path.read_text()
    path.write_text(source.replace(mutant.old, mutant.new))
    return source.count(mutant.old) == 1


def found(mutant: Mutant, history: Path) -> str | None:
    """Return the first thing that the mutant's judge found."""
    argv = [CHAOS, "judge", history, "--json"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)  # noqa: S603
    verdicts: list[dict[str, Any]] = json.loads(done.stdout)
    for verdict in verdicts:
        if verdict["judge"] == mutant.judge and verdict["broken"]:
            return str(verdict["broken"][0])
    if not mutant.judge and all(verdict["held"] for verdict in verdicts):
        return "holds"
    return None


def note(mutant: Mutant, seed: int, said: str | None, took_s: float) -> None:
    """Add what came out to the results."""
    RESULTS.parent.mkdir(exist_ok=True)
    described = subprocess.run(  # noqa: S603  # git
        ["git", "-C", ROOT, "describe", "--always", "--dirty", "--abbrev=9"],  # noqa: S607
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    result = {
        "commit": described.stdout.strip(), "mutant": mutant.name, "judge": mutant.judge,
        "seed": seed, "took_s": round(took_s), "said": said,
    }  # fmt: skip
    with RESULTS.open("a") as file:
        file.write(json.dumps(result) + "\n")


def main(only: list[str]) -> int:
    """Run the mutants whose names contain one of ``only``."""
    failed = 0
    for mutant in (UNCHANGED, *MUTANTS):
        if only and not any(word in mutant.name for word in only):
            continue
        said = None
        for seed in SEEDS if mutant.judge else SEEDS[:1]:
            begun = time.monotonic()
            with tempfile.TemporaryDirectory(prefix="wgmap-mutant-") as directory:
                said = run(mutant, seed, Path(directory))
            note(mutant, seed, said, time.monotonic() - begun)
            if said is not None:
                break
        failed += said is None or said.startswith("ERROR")
        verdict = said or ("SURVIVES" if mutant.judge else "DOES NOT HOLD")
        sys.stdout.write(f"{mutant.name:36} {mutant.judge:16} {verdict}\n")
        sys.stdout.flush()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
