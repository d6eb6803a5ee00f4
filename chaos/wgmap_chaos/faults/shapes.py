"""Who does not hear whom: shapes of cuts between servers. Pure."""

from collections.abc import Collection, Sequence
from typing import TypeAlias, TypeVar

NodeT = TypeVar("NodeT", int, str)
Cuts: TypeAlias = set[tuple[NodeT, NodeT]]  # what the first one sends does not reach the second


def pairs(nodes: Collection[NodeT]) -> Cuts[NodeT]:
    """Return all of them: nobody hears anybody."""
    return {(a, b) for a in nodes for b in nodes if a != b}


def around(node: NodeT, nodes: Collection[NodeT]) -> Cuts[NodeT]:
    """Cut one off from all others, both ways."""
    return {cut for cut in pairs(nodes) if node in cut}


def deaf(node: NodeT, nodes: Collection[NodeT]) -> Cuts[NodeT]:
    """Let one hear nobody, but be heard."""
    return {cut for cut in pairs(nodes) if cut[1] == node}


def mute(node: NodeT, nodes: Collection[NodeT]) -> Cuts[NodeT]:
    """Let nobody hear one, which hears all."""
    return {cut for cut in pairs(nodes) if cut[0] == node}


def ring(order: Sequence[NodeT]) -> Cuts[NodeT]:
    """Let everybody hear only its two neighbours; with three: two do not hear each other.

    So no server sees what all see, and majorities overlap only in part.
    """
    size = len(order)
    near = {(order[i], order[(i + 1) % size]) for i in range(size - (size == 3))}
    near |= {(b, a) for a, b in near}
    return pairs(order) - near


def halves(part: Collection[NodeT], nodes: Collection[NodeT]) -> Cuts[NodeT]:
    """Cut a part off from the rest, both ways."""
    return {(a, b) for a, b in pairs(nodes) if (a in part) != (b in part)}


def bridge(order: Sequence[NodeT]) -> Cuts[NodeT]:
    """Cut two halves off from each other but for the first one, which hears both."""
    middle, others = order[0], order[1:]
    return halves(others[: len(others) // 2], [node for node in order if node != middle])
