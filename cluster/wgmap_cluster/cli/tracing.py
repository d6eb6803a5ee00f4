"""``wgmap trace EID``: the way of a packet as the servers see it, to where it stops.

With ``--from NAME`` it is a packet of that peer: is it there, and was it told of the destination,
and the destination of it? With ``--from SOCKET`` the agent of this machine is asked: what it did,
and what it has installed.
"""

import argparse
import json
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, urlencode

from wgmap.errors import ExitCode, UnavailableError, WgmapError
from wgmap.terminal import bad, bold, doubtful, faint, good
from wgmap_cluster.cli import texts
from wgmap_cluster.cli.client import Client
from wgmap_cluster.cli.commands import Report

if TYPE_CHECKING:
    from wgmap_cluster.replica.events import Event
    from wgmap_cluster.replica.views import (
        ContactsView,
        ContactView,
        PeerDetailView,
        PeerView,
        ResolveView,
        ToldView,
    )

ANSWER_S = 30.0
MAX_ANSWER = 1 << 20
EVENTS = 5


class Step(NamedTuple):
    """What was looked at, whether a packet gets past it (None: not known), and what was seen."""

    step: str
    ok: bool | None
    detail: str


def trace(client: Client, options: argparse.Namespace) -> Report:
    """Follow an EID; FAILED where a packet would stop."""
    source: str | None = options.source
    by_name = source is not None and "/" not in source
    query = {"search": options.eid, "instance": options.instance, "limit": 10}
    owners: list[PeerView] = client.get(f"/v1/peers?{urlencode(query)}")
    resolved: ResolveView = client.get(
        f"/v1/resolve?{urlencode({'eid': options.eid, 'instance': options.instance})}"
    )
    steps = [_enrolled(options.eid, owners), _mapping(resolved), _fresh(resolved)]
    peer = resolved["peer"] or next((one["name"] for one in owners if not one["revoked"]), None)
    contacts: ContactsView | None = None
    if source is not None and by_name:
        steps = [_source(client, source, options.instance), *steps]
        if peer is not None:
            contacts = client.get(f"/v1/contacts?{urlencode({'peer': source, 'with': peer})}")
            steps += _told(contacts, source, peer)
    events = _events(client, peer) if peer else []
    agent = _ask(client, Path(source), options.eid) if source is not None and not by_name else None
    stopped = any(step.ok is False for step in steps)
    found = not stopped and (agent is None or bool(agent["found"]))
    value = {
        "eid": options.eid,
        "instance": options.instance,
        "found": found,
        "steps": [step._asdict() for step in steps],
        "peer": peer,
        "events": events,
        "agent": agent,
        "contacts": contacts,
    }
    text = "\n".join(_lines(options.eid, steps, events, agent))
    return Report(value, text, ExitCode.OK if found else ExitCode.FAILED)


def _source(client: Client, name: str, instance: int) -> Step:
    """Look at who sends; raises WgmapError where there is no peer of that name."""
    view: PeerDetailView = client.get(f"/v1/peers/{quote(name, safe='')}")
    if view["revoked"]:
        return Step("source", ok=False, detail=f"{name} is revoked")
    if view["instance"] != instance:
        detail = f"{name} is in instance {view['instance']}, which has addresses of its own"
        return Step("source", ok=False, detail=detail)
    if not view["registered"]:
        return Step("source", ok=False, detail=f"{name} is not registered: its agent is not there")
    return Step("source", ok=True, detail=f"{name}, seen {texts.duration(view['last_seen_s'])} ago")


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


def _told(view: "ContactsView", source: str, peer: str) -> list[Step]:
    """Say which servers told the one of the other, and the other of the one."""
    known = {(one["agent"], one["subject"]): one for one in view["contacts"]}
    asked, pushed = known.get((source, peer)), known.get((peer, source))
    unknown = f" (not known: {', '.join(view['silent'])})" if view["silent"] else ""
    first = Step("asked", _heard(asked), _by_whom(source, peer, asked) + unknown)
    return [first, Step("told", _heard(pushed), _by_whom(peer, source, pushed) + unknown)]


def _heard(contact: "ContactView | None") -> bool | None:
    """Say whether an agent heard it; None: it was not told (or that is over), or may yet hear."""
    states = {one["state"] for one in contact["told"]} if contact is not None else set()
    if "heard" in states:
        return True
    return False if states == {"unheard"} else None


def _by_whom(agent: str, subject: str, contact: "ContactView | None") -> str:
    if contact is None:
        why = "nothing was sent, or no question came"
        return f"no server told {agent} of {subject} within the TTL: {why}"
    return f"{agent} was told of {subject} by {', '.join(map(_server, contact['told']))}"


def _server(told: "ToldView") -> str:
    said = {"waiting": ", not acknowledged yet", "unheard": ", never acknowledged"}
    return f"{told['server']} {told['ago_s']:.1f} s ago{said.get(told['state'], '')}"


def _events(client: Client, peer: str) -> "list[Event]":
    lines = b"".join(client.receive("/v1/events")).splitlines()
    events = [json.loads(line) for line in lines if line]
    return [event for event in events if event.get("subject") == peer][-EVENTS:]


def _ask(client: Client, path: Path, eid: str) -> Any:
    """Ask the agent on this machine, as ``wgmap-agent trace`` does; raises WgmapError."""
    client.progress.say(f"waiting for the agent at {path}")
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
    mark = doubtful("?   ") if step.ok is None else good("ok  ") if step.ok else bad("STOP")
    return f"  {mark} {step.step}: {step.detail}"
