"""A flood from one enrolled agent slows the others by no more than a small factor.

The machine is the same for all: so what the others see at the flooded server is compared with what
they see, in the same moments, at that server while another one is flooded. The flood costs the
machine the same; only the server under test differs. A process that always has work waits for its
turn where all processors are busy, which the control does not see: so this wants a quiet machine,
and the usual run leaves it out (``tests/cluster/test_overload.py`` has the order of what is
served, whatever the machine does).
"""

import logging
import os
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from support.flood import FLOODS
from support.lab import Lab, wait_until
from support.voice import Voice, fresh_nonces, ports, silenced
from wgmap.clock import now
from wgmap_chaos.lab import observation
from wgmap_chaos.lab.inventory import AgentEntry, ServerEntry

_LOG = logging.getLogger(__name__)
LONG = bool(os.environ.get("WGMAP_LONG"))
pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.timeout(1200 if LONG else 240)]
TURNS = 3
TURN_S = 2.0
FACTOR = 3.0  # 1.2 on a quiet machine
MISSED = 0.02  # of the questions


@dataclass
class Seen:
    """What an honest agent saw of a server."""

    lookups: list[float] = field(default_factory=list)  # seconds each took
    registers: list[float] = field(default_factory=list)
    missed: int = 0
    ran_s: dict[str, float] = field(
        default_factory=lambda: defaultdict(float)
    )  # processor time of the server's programs
    waited_s: dict[str, float] = field(
        default_factory=lambda: defaultdict(float)
    )  # what they waited for a processor


@contextmanager
def working(server: ServerEntry, seen: Seen) -> Iterator[None]:
    """Add up what a server's programs use meanwhile, and how long they waited for a processor."""
    before = used(server)
    yield
    for role, (ran, waited) in used(server).items():
        seen.ran_s[role] += ran - before[role][0]
        seen.waited_s[role] += waited - before[role][1]


def used(server: ServerEntry) -> dict[str, tuple[float, float]]:
    """Return for how long a server's programs have run, and waited for a processor, in seconds."""
    pids = {role: server.pids[role] for role in ("responder", "replica")}
    pids["tunnel"] = server.wireguard[server.control_interface]
    return {role: _scheduled(pid) for role, pid in pids.items()}


def _scheduled(pid: int | None) -> tuple[float, float]:
    threads = [one.read_text().split() for one in Path(f"/proc/{pid}/task").glob("*/schedstat")]
    ran, waited = (sum(int(one[n]) for one in threads) / 1e9 for n in (0, 1))
    return ran, waited


@contextmanager
def flooding(lab: Lab, flooder: AgentEntry, server: ServerEntry, kind: str) -> Iterator[None]:
    """Flood a server from one agent."""
    tests = str(Path(__file__).parents[2])
    argv = [sys.executable, "-m", "support.flood", str(lab.directory / "lab.json")]
    with subprocess.Popen(
        [*argv, flooder.name, server.name, kind],
        env=os.environ | {"PYTHONPATH": tests},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdout is not None
        try:
            assert running.stdout.readline().strip() == "runs"
            yield
        finally:
            out, _ = running.communicate()
            assert int(out) > 0


def honest(agent: AgentEntry, server: ServerEntry, seen: Seen, base: int) -> None:
    """Look up and register for a while, one after the other."""
    with Voice(agent) as voice, working(server, seen):
        end, number = now() + TURN_S, 0
        while now() < end:
            number += 1
            began = now()
            asked = voice.ask(server, agent.eids[0], wait_s=0.5)
            seen.missed += asked is None
            if asked is not None:
                seen.lookups.append(now() - began)
            if number % 4:
                continue
            began = now()
            given = voice.register(server, voice.register_bytes(base + number), wait_s=0.5)
            seen.missed += given is None
            if given is not None:
                seen.registers.append(now() - began)


@pytest.mark.skipif(not LONG, reason="measures: make test-promises")
@pytest.mark.parametrize("kind", FLOODS)
def test_a_flood_slows_the_others_by_a_small_factor(lab: Lab, kind: str) -> None:
    target, elsewhere = (one for one in lab.file.servers if one.name != lab.status()["leader"])
    three = flooded, control, quiet = Seen(), Seen(), Seen()
    with silenced(lab, "a3") as agent, silenced(lab, "a4") as flooder:
        for turn in range(TURNS):
            for server, seen in ((target, flooded), (elsewhere, control)):
                with flooding(lab, flooder, server, kind):
                    honest(agent, target, seen, fresh_nonces() + 4000 * turn)
            honest(agent, target, quiet, fresh_nonces() + 4000 * turn + 2000)
    factors = {}
    for what in ("lookups", "registers"):
        middle = [1e3 * statistics.median(getattr(one, what)) for one in three]
        factors[what] = middle[0] / middle[1]
        _LOG.info(
            "flood of %s: %s took %.2f ms, %.2f ms with another server flooded, %.2f ms without"
            " any flood: factor %.2f; %d answered",
            *(kind, what, *middle, factors[what], len(getattr(flooded, what))),
        )
    for role in flooded.ran_s:
        _LOG.info(
            "flood of %s: %s: ran %s, waited %s (%% of a processor; control; quiet)",
            *(kind, role, shares(role, "ran_s", *three), shares(role, "waited_s", *three)),
        )
    _LOG.info("missed: %d, %d without", flooded.missed, control.missed)
    assert flooded.missed <= control.missed + 1 + MISSED * len(flooded.lookups)
    assert max(factors.values()) < FACTOR, factors
    assert refused(target, kind), "the flood was beyond what one peer may ask"


def shares(role: str, what: str, *seen: Seen) -> str:
    """Return how much of the time a program ran or waited, in per cent."""
    return ", ".join(f"{100 * getattr(one, what)[role] / (TURNS * TURN_S):.0f}" for one in seen)


def refused(server: ServerEntry, kind: str) -> int:
    """Return how much of such a flood a server has refused."""
    counted = observation.admin_get(server.admin_socket, "/v1/counters")
    assert counted is not None
    limited = {"registers": "register_limited"}.get(kind, "limited")
    return sum(one.get(f"refused.{limited}", 0) for one in counted["responders"])


def test_the_flooder_itself_is_served_within_its_limit(lab: Lab) -> None:
    server = lab.file.servers[0]
    with silenced(lab, "a4") as flooder:
        with flooding(lab, flooder, server, "lookups"):
            wait_until(lambda: refused(server, "lookups"), "its limit is reached")
        with Voice(flooder) as voice:
            reply = wait_until(
                lambda: voice.ask(server, flooder.eids[0]), "it is answered once it is quiet"
            )
            assert ports(reply)
