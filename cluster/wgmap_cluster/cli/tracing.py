"""``wgmap trace EID``: the way of a packet as the servers see it, to where it stops.

With ``--from`` the agent of this machine is asked as well: what it did, and what it has installed.
"""

import argparse
import json
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlencode

from wgmap.errors import ExitCode, UnavailableError, WgmapError
from wgmap.terminal import bad, bold, faint, good
from wgmap_cluster.cli import texts
from wgmap_cluster.cli.client import Client
from wgmap_cluster.cli.commands import Report

if TYPE_CHECKING:
    from wgmap_cluster.replica.events import Event
    from wgmap_cluster.replica.views import PeerView, ResolveView

ANSWER_S = 30.0
MAX_ANSWER = 1 << 20
EVENTS = 5


class Step(NamedTuple):
    """What was looked at, whether a packet gets past it, and what was seen."""

    step: str
    ok: bool
    detail: str


def trace(client: Client, options: argparse.Namespace) -> Report:
    """Follow an EID; FAILED where a packet would stop."""
    query = {"search": options.eid, "instance": options.instance, "limit": 10}
    owners: list[PeerView] = client.get(f"/v1/peers?{urlencode(query)}")
    resolved: ResolveView = client.get(
        f"/v1/resolve?{urlencode({'eid': options.eid, 'instance': options.instance})}"
    )
    steps = [_enrolled(options.eid, owners), _mapping(resolved), _fresh(resolved)]
    peer = resolved["peer"] or next((one["name"] for one in owners if not one["revoked"]), None)
    events = _events(client, peer) if peer else []
    agent = _ask(options.agent, options.eid) if options.agent is not None else None
    found = all(step.ok for step in steps) and (agent is None or bool(agent["found"]))
    value = {
        "eid": options.eid,
        "instance": options.instance,
        "found": found,
        "steps": [step._asdict() for step in steps],
        "peer": peer,
        "events": events,
        "agent": agent,
    }
    text = "\n".join(_lines(options.eid, steps, events, agent))
    return Report(value, text, ExitCode.OK if found else ExitCode.FAILED)


def _enrolled(eid: str, owners: "list[PeerView]") -> Step:
    live = [one for one in owners if not one["revoked"]]
    if not live:
        gone = ", ".join(one["name"] for one in owners)
        detail = f"only of {gone}, revoked" if gone else f"nobody may register {eid}"
        return Step("enrolled", ok=False, detail=detail)
    one = live[0]
    seen = texts.duration(one["last_seen_s"])
    detail = f"{one['name']}, seen {seen} ago" if seen else f"{one['name']}, never seen"
    return Step("enrolled", ok=True, detail=detail)


def _mapping(view: "ResolveView") -> Step:
    if not view["found"]:
        return Step("mapping", ok=False, detail="none: its agent is not registered, or expired")
    places = " ".join(map(texts.endpoint, view["locators"]))
    detail = f"{view['prefix']} of {view['peer']}, version {view['version']}, at {places}"
    return Step("mapping", ok=bool(view["locators"]), detail=detail)


def _fresh(view: "ResolveView") -> Step:
    detail = "a quorum says so" if view["fresh"] else "no quorum confirms it: it may be out of date"
    return Step("authority", ok=view["fresh"], detail=detail)


def _events(client: Client, peer: str) -> "list[Event]":
    lines = b"".join(client.receive("/v1/events")).splitlines()
    events = [json.loads(line) for line in lines if line]
    return [event for event in events if event.get("subject") == peer][-EVENTS:]


def _ask(path: Path, eid: str) -> Any:
    """Ask the agent on this machine, as ``wgmap-agent trace`` does; raises WgmapError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as agent:
        agent.settimeout(ANSWER_S)
        try:
            agent.connect(str(path))
            agent.sendall(json.dumps({"op": "trace", "eid": eid}).encode() + b"\n")
            with agent.makefile("rb") as file:
                answer = json.loads(file.readline(MAX_ANSWER))
        except (OSError, ValueError) as error:
            msg = f"no agent answers at {path}: {error} (elsewhere: wgmap-agent trace {eid})"
            raise UnavailableError(msg) from error
    if "error" in answer:
        raise WgmapError(f"the agent: {answer['error']}")
    return answer["ok"]


def _lines(eid: str, steps: list[Step], events: "list[Event]", agent: Any) -> list[str]:
    lines = [bold(f"servers: {eid}"), *map(_line, steps)]
    lines += [f"  {faint(texts.event(event))}" for event in events]
    if agent is not None:
        own = [Step(one["step"], one["ok"], one["detail"]) for one in agent["steps"]]
        lines += [bold("agent"), *map(_line, own)]
    return lines


def _line(step: Step) -> str:
    mark = good("ok  ") if step.ok else bad("STOP")
    return f"  {mark} {step.step}: {step.detail}"
