"""The steps of one first contact, from the agent's stamps and from packets seen on the way.

Each step is the time since the one before it. Where a step came before its predecessor (the
handshake can be complete before the agent has gone on) it counts as 0.
"""

from collections.abc import Iterable

from contact.capture import Seen, Tap
from contact.probe import Reply
from wgmap_agent.runner import statussocket
from wgmap_chaos.lab.inventory import AgentEntry, Inventory

# (name, what it is): in the order of time.
STEPS = (
    ("captured", "packet read from the TUN by the agent"),
    ("asked", "Map-Request handed to the control tunnel"),
    ("at server", "request through the control tunnel, at the server's interface"),
    ("server", "responder: request in to answer out"),
    ("answered", "answer through the control tunnel, read by the agent"),
    ("peer", "answer decoded and judged, peer set in WireGuard (UAPI)"),
    ("injected", "packet handed to the data tunnel"),
    ("initiation", "handshake initiation on the underlay"),
    ("handshake", "response back: one round trip, and both sides' cryptography"),
    ("reply", "first packet there and its reply back"),
)
# Beside the path of the first packet: since the handshake.
ROUTE = ("route", "routes set in the kernel, after the handshake: no packet waits for it")


def taps(lab: Inventory) -> list[Tap]:
    """Say where packets are looked at: control interfaces of servers, underlay of agents."""
    servers = [Tap(one.name, one.netns, one.control_interface) for one in lab.servers]
    return servers + [Tap(one.name, one.netns, one.underlay_port) for one in lab.agents]


def stamps(agent: AgentEntry, eid: object) -> dict[str, float]:
    """Return what the agent stamped of its last first contact with an EID."""
    told = statussocket.request(agent.socket, {"op": "contact", "eid": str(eid)})
    return {one["step"]: one["at"] for one in told["contact"]}


def times(
    lab: Inventory, asking: AgentEntry, seen: Iterable[Seen], stamped: dict[str, float]
) -> dict[str, float]:
    """Return when each step was done, as far as it was seen."""
    found = {name: at for name, at in stamped.items() if name != "stands"}
    servers = {one.name for one in lab.servers}
    for one in seen:
        name = _step(one, servers, asking.name)
        if name is not None:
            found.setdefault(name, one.at)
    return found


def durations(reply: Reply, found: dict[str, float]) -> dict[str, float]:
    """Return how long each step took, in ms; empty where one is missing."""
    assert reply.replied is not None, "only contacts that came about have steps"
    found = {**found, "reply": reply.replied}
    if any(name not in found for name, _ in STEPS):
        return {}
    took: dict[str, float] = {}
    before = reply.sent
    for name, _ in STEPS:
        took[name] = max(0.0, found[name] - before) * 1e3
        before = max(before, found[name])
    if ROUTE[0] in found:
        took[ROUTE[0]] = max(0.0, found[ROUTE[0]] - found["handshake"]) * 1e3
    return took


def _step(one: Seen, servers: set[str], asking: str) -> str | None:
    if one.tap in servers:
        return {(False, "lisp 1"): "at server", (True, "lisp 2"): "server"}.get(
            (one.outgoing, one.kind)
        )
    if one.tap != asking:
        return None
    return {(True, "wg 1"): "initiation", (False, "wg 2"): "handshake"}.get(
        (one.outgoing, one.kind)
    )
