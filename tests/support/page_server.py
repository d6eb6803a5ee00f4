"""``python -m support.page_server SOCKET PEERS``: a cluster in memory behind a real admin socket.

Lines on its standard input are commands: ``lose NAME`` and ``hear NAME`` cut a server off and bring
it back, ``enrol NAME NUMBER`` enrols a peer, ``tell AGENT SUBJECT STATE`` has a server tell one of
another.
"""

import asyncio
import ipaddress
import math
import random
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from support import fsm
from support.contacts import Responders
from support.operators import Cluster, serving
from wgmap_cluster.fsm.commands import Revoke
from wgmap_cluster.fsm.rows import Change, LocatorRow, MappingRow, PeerRow, RegistrationRow, Table
from wgmap_cluster.fsm.state import State
from wgmap_cluster.replica.history import EVERY_S, Sample

FIRST = int(ipaddress.ip_address("10.64.0.0"))
BY_HAND = ("cpe-berlin-01", "cpe-hamburg-02", "router-office", "backup-vault", "build-farm-7")


def fill(state: State, count: int) -> None:
    """Put peers into the tables, of which nine in ten are registered."""
    for number in range(count):
        name = f"cpe-{number:06d}"
        prefix = bytes((32,)) + (FIRST + number).to_bytes(4)
        control = ipaddress.ip_address("fd77:676d:6170::").packed[:8] + (1000 + number).to_bytes(8)
        key = number.to_bytes(4) * 8
        state.put(Change(Table.PEERS, name, PeerRow(key, control, 0, (prefix,))))
        if number % 10 == 9:
            continue
        state.put(Change(Table.REGISTRATIONS, name, RegistrationRow(1, b"", 0.0, 60, key)))
        place = LocatorRow((0xC6120000 + number).to_bytes(4), 51820, 1, 100)
        row = MappingRow(name, key, (place,), 60, 1 + number % 7)
        state.put(Change(Table.MAPPINGS, (0, prefix), row))


def past(minutes: int = 60) -> list[Sample]:
    """Return an hour of a server as it might have been, the same one each time."""
    rng = random.Random(7)
    now, count = datetime.now(UTC), int(minutes * 60 / EVERY_S)
    samples: list[Sample] = []
    for number in range(count):
        load = 900 + 250 * math.sin(number / 40) + rng.uniform(-60, 60)
        slow = 0.0025 if rng.random() > 0.004 else 0.01
        samples.append(
            {
                "number": number + 1,
                "time": (now - timedelta(seconds=EVERY_S * (count - number))).isoformat(),
                "lookups_per_s": round(load, 1),
                "lookup_p50_s": 0.00025 if load < 1050 else 0.0005,
                "lookup_p99_s": slow,
                "introductions_per_s": round(load / 100, 1),
                "introductions_unheard_per_s": 0.2 if rng.random() < 0.05 else 0.0,
                "introduction_p50_s": 0.02 if load < 1050 else 0.03,
                "introduction_p99_s": 0.05 if rng.random() > 0.1 else 0.1,
                "registers_per_s": round(load / 30, 1),
                "sync_p99_s": 0.001 if rng.random() > 0.02 else 0.005,
                "shed_per_s": 0.0,
            }
        )
    return samples


async def _obey(cluster: Cluster, line: str) -> None:
    match line.split():
        case ["lose", name]:
            cluster.log.lose(name)
        case ["hear", name]:
            cluster.log.hear(name, cluster.log.index)
            cluster.log.followers.add(name)
        case ["enrol", name, number]:
            await cluster.apply(fsm.enrol(name, int(number), f"10.66.{number}.0/24"))
        case ["tell", agent, subject, state]:
            cluster.responders.tell(agent, subject, state=state)
        case _:
            raise ValueError(line)


def talk(responders: Responders) -> None:
    """Have some peers have talked with others, the same ones each time; the office with many."""
    rng = random.Random(5)
    for number in range(26):
        one, other = f"cpe-{rng.randrange(40):06d}", rng.choice((*BY_HAND[:4], "cpe-000021"))
        ago_s = rng.uniform(1, 60 * number + 5)
        responders.tell(one, other, ago_s)
        responders.tell(other, one, ago_s, "unheard" if number == 20 else "heard")


async def run(socket: Path, count: int) -> None:
    """Serve until the standard input ends."""
    async with serving(socket) as cluster:
        fill(cluster.machine.state, count)
        cluster.operations.history.prime(past())
        for number, name in enumerate(BY_HAND, 1):
            own = f"10.66.{number}.0/24"
            at = f"192.0.2.{20 + number}"
            await cluster.apply(fsm.enrol(name, number, own, f"fd66::{number}/128"))
            await cluster.apply(fsm.register(number, 1, own, at=at, data=100 + number))
        await cluster.apply(Revoke("build-farm-7", fsm.ORIGIN))
        talk(cluster.responders)
        cluster.log.hear("ms2", cluster.log.index, agents=4)
        cluster.log.hear("ms3", cluster.log.index, agents=4)
        sys.stdout.write("serving\n")
        sys.stdout.flush()
        loop = asyncio.get_running_loop()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            await _obey(cluster, line)
            sys.stdout.write("done\n")
            sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(run(Path(sys.argv[1]), int(sys.argv[2])))
