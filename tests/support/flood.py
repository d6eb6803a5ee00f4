"""``python -m support.flood LAB.JSON AGENT SERVER KIND``: floods a server from an enrolled agent.

A process of its own, so that what it costs is not taken from whoever measures. It says ``runs``
once the flood runs, and ends with how many it has sent when its standard input ends.
"""

import os
import select
import sys
from collections.abc import Callable
from pathlib import Path

from support.voice import Voice, fresh_nonces, own
from wgmap.addresses import host_prefix
from wgmap.clock import now
from wgmap.lisp.codec import encode
from wgmap.lisp.messages import Eid, Locator, MapRequest, Record, RequestRecord
from wgmap_chaos.lab import inventory
from wgmap_chaos.lab.inventory import AgentEntry

# Three times what a peer may ask, a hundred times what it may register.
A_SECOND = 6000
BURST = 60
DISTINCT = 4096  # datagrams, again and again
Flood = Callable[[Voice, AgentEntry, int], bytes]


def lookup(_: Voice, agent: AgentEntry, number: int) -> bytes:
    """Ask for its own mapping: nobody is pushed anything by that."""
    return _request(agent, number, Eid(own(agent)[0]))


def refresh(_: Voice, agent: AgentEntry, number: int) -> bytes:
    """Ask for what needs a barrier."""
    return _request(agent, number, Eid(own(agent)[0]), refresh=True)


def stranger(_: Voice, agent: AgentEntry, number: int) -> bytes:
    """Ask for another address each time: nothing is known of any."""
    return _request(agent, number, _unknown(agent, number))


def several(_: Voice, agent: AgentEntry, number: int) -> bytes:
    """Ask for as many as one request may."""
    return _request(agent, number, *(_unknown(agent, number + n) for n in range(32)))


def long(_: Voice, agent: AgentEntry, number: int) -> bytes:
    """Ask with a mapping of its own (the M bit) that takes long to read."""
    locator = Locator(agent.underlay[0], 51820, bytes(32))
    record = Record(Eid(own(agent)[0]), 12 * (locator,))
    return _request(agent, number, _unknown(agent, number), record=record)


def _unknown(agent: AgentEntry, number: int) -> Eid:
    base = int(agent.eids[0]) & ~0xFFFF
    return Eid(host_prefix(type(agent.eids[0])(base | 200 << 8 | number % 256)))


def _request(
    agent: AgentEntry,
    number: int,
    *eids: Eid,
    refresh: bool = False,
    record: Record | None = None,
) -> bytes:
    asked = tuple(map(RequestRecord, eids))
    nonce = 1 << 40 | number
    return encode(
        MapRequest(nonce, (agent.control,), asked, smr_invoked=refresh, map_reply_record=record)
    )


def register(voice: Voice, _: AgentEntry, number: int) -> bytes:
    """Register something new each time."""
    return voice.register_bytes(fresh_nonces() + number % 16_000, port=30_000 + number % 1000)


def garbage(_: Voice, __: AgentEntry, number: int) -> bytes:
    """Send what is no message."""
    return bytes((0x10 if number % 2 else 0x30, 0xFF)) + os.urandom(400)


FLOODS: dict[str, Flood] = {
    "lookups": lookup,
    "questions for strangers": stranger,
    "questions for 32 strangers each": several,
    "long questions": long,
    "registers": register,
    "refreshes": refresh,
    "garbage": garbage,
}


def main(lab_json: str, agent_name: str, server_name: str, kind: str) -> None:
    """Flood until the standard input ends."""
    lab = inventory.read(Path(lab_json))
    agent, server = lab.agent(agent_name), lab.server(server_name)
    with Voice(agent) as voice:
        datagrams = [FLOODS[kind](voice, agent, number) for number in range(DISTINCT)]
        began, sent = now(), 0
        while not _ended(max(0.0, began + sent / A_SECOND - now())):
            for _ in range(BURST):
                voice.send(server, datagrams[sent % DISTINCT])
                sent += 1
            if sent == A_SECOND // 2:
                _say("runs")
    _say(str(sent))


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _ended(wait_s: float) -> bool:
    return bool(select.select([sys.stdin], [], [], wait_s)[0])


if __name__ == "__main__":
    main(*sys.argv[1:])
