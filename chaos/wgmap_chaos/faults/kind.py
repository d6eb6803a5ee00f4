"""What all kinds of faults have in common."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from random import Random
from typing import TypeAlias

from wgmap_chaos.faults.site import Site


@dataclass(frozen=True, slots=True)
class Effect:
    """A fault that has been seen to be in force."""

    targets: tuple[str, ...]  # hosts
    roles: tuple[str, ...] = ()  # processes of theirs that it ends
    data: bool = False  # whether it disturbs tunnels between agents


# Entered, the fault is in force; left, it is healed, and both were seen to be so.
Befall: TypeAlias = Callable[[Site, Random], AbstractAsyncContextManager[Effect]]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault; ``area``: those of one area do not happen at once."""

    name: str
    area: str
    befall: Befall
    servers: int = 3  # at least
    agents: int = 0
    missing: Callable[[], str] = str  # says what the machine lacks; "" for nothing
