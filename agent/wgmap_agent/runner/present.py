"""Answers of the agent as people read them; ``status`` looks like ``wg show``."""

from collections.abc import Callable
from typing import TypeAlias

from wgmap.terminal import bold
from wgmap_agent.runner.statussocket import Json

Presenter: TypeAlias = Callable[[Json], str]
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def status(answer: Json) -> str:
    """Write the answer to ``status``."""
    head = [f"{bold('agent')}: {_registered(answer['registered'])}"]
    blocks = ["\n".join([*head, _line("release", answer["release"])])]
    blocks += [_server(server) for server in answer["servers"]]
    blocks += [_peer(peer) for peer in answer["peers"]]
    return "\n\n".join(blocks)


def resolve(answer: Json) -> str:
    """Write the answer to ``resolve``."""
    fresh = "fresh" if answer["fresh"] else "not fresh"
    if not answer["found"]:
        return f"{answer['eid']}: no mapping ({fresh})"
    lines = [
        f"{bold('eid')}: {answer['eid']}",
        _line("key", answer["key"]),
        _line("version", f"{answer['version']} ({fresh})"),
        _line("ttl", duration(answer["ttl_s"])),
    ]
    lines += [
        _line("locator", f"{_host(one['address'])}:{one['port']} priority {one['priority']}")
        for one in answer["locators"]
    ]
    return "\n".join(lines)


def trace(answer: Json) -> str:
    """Write the answer to ``trace``."""
    lines = [f"{bold('eid')}: {answer['eid']}"]
    for one in answer["steps"]:
        mark = "ok  " if one["ok"] else "STOP"
        lines.append(f"  {mark} {one['step']}: {one['detail']}")
    lines += [_line(f"server {one['name']}", _traced(one)) for one in answer["servers"]]
    return "\n".join([*lines, *_contact(answer["contact"])])


def _traced(server: Json) -> str:
    """Write what one server made of a question."""
    if server["answered_s"] is None:
        return "no answer"
    fresh = "fresh" if server["fresh"] else "not fresh"
    parts = [f"answered after {server['answered_s'] * 1e3:.2f} ms ({fresh})"]
    if server["index"] is None:
        parts.append("did not report")
        return ", ".join(parts)
    parts.append(f"log index {server['index']}")
    if server["pushed_s"] is None:
        parts.append("nobody to tell")
        return ", ".join(parts)
    parts.append(f"told the other side after {server['pushed_s'] * 1e3:.2f} ms")
    known = server["acknowledged_s"]
    parts.append(
        "no acknowledgement" if known is None else f"acknowledged after {known * 1e3:.2f} ms"
    )
    return ", ".join(parts)


def _contact(steps: list[Json]) -> list[str]:
    if not steps:
        return []
    start = steps[0]["at"]
    parts = [f"{one['step']} {(one['at'] - start) * 1e3:.2f} ms" for one in steps]
    return [_line("last first contact", ", ".join(parts))]


def forget(answer: Json) -> str:
    """Write the answer to ``forget``."""
    return f"{answer['eid']}: {'forgotten' if answer['found'] else 'no tunnel'}"


def rotate(answer: Json) -> str:
    """Write the answer to ``rotate-key``."""
    return f"the data key rotates to {answer['key']}"


def duration(seconds: float) -> str:
    """Write seconds as WireGuard's tools do: ``1 hour, 2 minutes, 3 seconds``."""
    left, parts = int(seconds), []
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1)):
        number, left = divmod(left, size)
        if number:
            parts.append(f"{number} {unit}{'s' if number > 1 else ''}")
    return ", ".join(parts) or "0 seconds"


def size(number: int) -> str:
    """Write bytes as WireGuard's tools do: ``1.21 KiB``."""
    value, unit = float(number), 0
    while value >= 1024 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{number} B" if unit == 0 else f"{value:.2f} {_UNITS[unit]}"


def _registered(registered: bool) -> str:  # it is printed, not a switch
    return "registered" if registered else "not registered"


def _server(server: Json) -> str:
    lines = [f"{bold('server')}: {server['name']}", _line("control", server["control"])]
    if server["preferred"]:
        lines.append(_line("preferred", "yes"))
    if server["rtt_ms"] is not None:
        lines.append(_line("round trip", f"{server['rtt_ms']:.1f} ms"))
    heard = server["last_heard_s"]
    lines.append(_line("latest answer", "never" if heard is None else f"{duration(heard)} ago"))
    return "\n".join(lines)


def _peer(peer: Json) -> str:
    handshake = peer["last_handshake_s"]
    lines = [
        f"{bold('peer')}: {peer['key']}",
        _line("endpoint", peer["endpoint"] or "(none)"),
        _line("allowed ips", ", ".join(peer["eids"]) or "(none)"),
    ]
    if handshake is not None:
        lines.append(_line("latest handshake", f"{duration(handshake)} ago"))
    if peer["rx"] is not None and peer["tx"] is not None:
        transfer = f"{size(peer['rx'])} received, {size(peer['tx'])} sent"
        lines.append(_line("transfer", transfer))
    return "\n".join([*lines, _line("state", peer["state"])])


def _line(name: str, value: str) -> str:
    return f"  {bold(name)}: {value}"


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address
