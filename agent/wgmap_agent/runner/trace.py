"""``wgmap-agent trace EID``: the way of a packet, step by step, to where it stops."""

import ipaddress
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from wgmap.addresses import IPAddress
from wgmap.errors import WgmapError
from wgmap_agent.config import AgentConfig
from wgmap_agent.engine.traces import ServerTrace
from wgmap_agent.engine.types import PeerStatus
from wgmap_agent.runner.contacts import Contacts
from wgmap_agent.runner.statussocket import Json


@dataclass(frozen=True, slots=True)
class Step:
    """One step: what was looked at, whether a packet gets past it, what was seen."""

    step: str
    ok: bool
    detail: str


class Tracer:
    """Follows EIDs for one agent."""

    def __init__(self, config: AgentConfig, contacts: Contacts) -> None:
        self._config = config
        self._contacts = contacts

    async def trace(
        self,
        eid: IPAddress,
        peers: Sequence[PeerStatus],
        traced: Sequence[ServerTrace],
        resolve: Callable[[], Awaitable[Json]],
    ) -> Json:
        """Look at the overlay, the map servers, the peer and its tunnel.

        ``servers`` is what each map server made of a question that was traced, ``contact`` are the
        steps of the last first contact: names and seconds since boot.
        """
        steps = [self._overlay(eid)]
        if steps[-1].ok:
            steps.append(await _mapping(resolve))
            steps += _tunnel(_owner(eid, peers))
        return {
            "eid": str(eid),
            "found": all(step.ok for step in steps),
            "steps": [{"step": one.step, "ok": one.ok, "detail": one.detail} for one in steps],
            "servers": [_server(one) for one in traced],
            "contact": self._contacts.steps(eid),
        }

    def _overlay(self, eid: IPAddress) -> Step:
        for prefix in self._config.agent.prefixes:
            if eid in prefix:
                return Step("overlay", ok=False, detail=f"{prefix} is this agent's own")
        for prefix in self._config.agent.overlay:
            if eid in prefix:
                return Step("overlay", ok=True, detail=f"in {prefix}")
        return Step("overlay", ok=False, detail="not inside the overlay")


def _server(traced: ServerTrace) -> Json:
    """Describe what a server told; times are seconds, from its question or its arrival there."""
    report = traced.report
    return {
        "name": traced.name,
        "answered_s": traced.answered_s,
        "fresh": traced.fresh,
        "index": None if report is None else report.index,
        "pushed_s": None if report is None else report.pushed,
        "acknowledged_s": None if report is None else report.acknowledged,
    }


async def _mapping(resolve: Callable[[], Awaitable[Json]]) -> Step:
    try:
        answer = await resolve()
    except WgmapError as error:
        return Step("mapping", ok=False, detail=str(error))
    freshness = "fresh" if answer["fresh"] else "not fresh: the server is out of touch"
    if not answer["found"]:
        return Step("mapping", ok=False, detail=f"no mapping ({freshness})")
    at = ", ".join(f"{one['address']} port {one['port']}" for one in answer["locators"])
    return Step(
        "mapping", ok=True, detail=f"{answer['eid']} -> {answer['key']} at {at} ({freshness})"
    )


def _tunnel(peer: PeerStatus | None) -> list[Step]:
    if peer is None:
        return [Step("tunnel", ok=True, detail="none yet: the first packet makes it")]
    steps = [Step("peer", ok=True, detail=f"{peer.key} at {peer.endpoint or 'unknown'}")]
    traffic = f"received {peer.rx or 0} bytes, sent {peer.tx or 0}"
    stood = peer.last_handshake_s
    handshake = "no handshake yet" if stood is None else f"handshake {stood:.1f} s ago"
    detail = f"{peer.state}, {handshake}, {traffic}"
    return [*steps, Step("tunnel", ok=peer.state == "up", detail=detail)]


def _owner(eid: IPAddress, peers: Sequence[PeerStatus]) -> PeerStatus | None:
    owned = [
        (ipaddress.ip_network(prefix).prefixlen, index)
        for index, peer in enumerate(peers)
        for prefix in peer.eids
        if eid in ipaddress.ip_network(prefix)
    ]
    return peers[max(owned)[1]] if owned else None
