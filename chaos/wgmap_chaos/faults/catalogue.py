"""All kinds of faults, and the order in which they come."""

from collections.abc import Iterator, Sequence
from random import Random

from wgmap.errors import ConfigError
from wgmap_chaos.faults import (
    agents,
    clocks,
    descriptors,
    disks,
    links,
    membership,
    memory,
    networks,
    servers,
    upgrades,
)
from wgmap_chaos.faults.kind import Kind

KINDS = (
    *servers.KINDS,
    *disks.KINDS,
    *memory.KINDS,
    *descriptors.KINDS,
    *clocks.KINDS,
    *membership.KINDS,
    *upgrades.KINDS,
    *networks.KINDS,
    *links.KINDS,
    *agents.KINDS,
)


def choose(names: Sequence[str], server_count: int, agent_count: int) -> list[Kind]:
    """Return the kinds that are named (none: all) and possible; ConfigError where none is.

    One that is named and for which the machine lacks something is an error, too.
    """
    by_name = {kind.name: kind for kind in KINDS}
    for name in names:
        if name not in by_name:
            raise ConfigError(f"no fault is called {name!r}; there is {', '.join(by_name)}")
        if lacks := by_name[name].missing():
            raise ConfigError(f"{name!r} is not possible here: {lacks} is missing")
    wanted = [by_name[name] for name in names] or [k for k in KINDS if not k.missing()]
    possible = [k for k in wanted if k.servers <= server_count and k.agents <= agent_count]
    if not possible:
        raise ConfigError(f"none of these faults is possible with {server_count} servers")
    return possible


def order(kinds: Sequence[Kind], rng: Random, together: float) -> Iterator[tuple[Kind, ...]]:
    """Yield what happens at once: each kind in turn, in a new order each time.

    ``together``: how often (0 to 1) a second one of another area comes with it.
    """
    while True:
        turn = list(kinds)
        rng.shuffle(turn)
        for kind in turn:
            others = [other for other in kinds if other.area != kind.area]
            with_it = rng.random() < together and others
            yield (kind, rng.choice(others)) if with_it else (kind,)
