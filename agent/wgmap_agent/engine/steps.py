"""Marks the steps of first contacts in a list of actions; the runner stamps them."""

from wgmap.addresses import IPAddress
from wgmap_agent.engine.types import (
    Action,
    ConfigurePeers,
    ContactStep,
    Inject,
    Stamp,
)

_DONE_BY: dict[type[Action], ContactStep] = {
    ConfigurePeers: ContactStep.PEER,
    Inject: ContactStep.INJECTED,
}


def stamped(now: float, actions: list[Action], destinations: tuple[IPAddress, ...]) -> list[Action]:
    """Mark what an answer that was read at ``now`` leads to for these destinations."""
    marked: list[Action] = [Stamp(destinations, ContactStep.ANSWERED, now)]
    for action in actions:
        marked.append(action)
        step = _DONE_BY.get(type(action))
        if step is not None:
            marked.append(Stamp(destinations, step))
    return marked
