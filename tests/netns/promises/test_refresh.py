"""A refresh is never older than the last acknowledged registration, also while leaders change.

``WGMAP_LONG=1`` (``make test-promises``) asks thousands of times and kills a leader every few
seconds; the usual run asks a hundred times and kills two.
"""

import logging
import os
import signal

import pytest

from support.lab import Lab, wait_until
from support.voice import Voice, ports, silenced
from wgmap.clock import now
from wgmap.errors import UnavailableError
from wgmap_chaos.lab import observation

pytestmark = [
    pytest.mark.netns,
    pytest.mark.slow,
    pytest.mark.timeout(3600 if os.environ.get("WGMAP_LONG") else 300),
]
_LOG = logging.getLogger(__name__)
LONG = bool(os.environ.get("WGMAP_LONG"))
ROUNDS = 10_000 if LONG else 100
KILL_EVERY = 250 if LONG else 50


def kill_the_leader(lab: Lab) -> None:
    """Kill the replica that leads; its supervisor starts it again."""
    leader = lab.file.server(wait_until(lambda: lab.status()["leader"], "there is a leader"))
    children = lab.run(leader.netns, "pgrep", "-P", str(leader.pids["supervisor"])).split()
    for pid in map(int, children):
        line = lab.run(leader.netns, "cat", f"/proc/{pid}/cmdline", check=False)
        if "wgmap_cluster.replica" in line:
            os.kill(pid, signal.SIGKILL)


def leader_of(lab: Lab) -> str | None:
    """Return who leads once all servers say the same."""
    try:
        said = [observation.admin_get(one.admin_socket, "/v1/status") for one in lab.file.servers]
    except UnavailableError:
        return None  # one of them is down
    names = {one["leader"] if one else None for one in said}
    return names.pop() if len(names) == 1 else None


def test_a_refresh_against_a_register_acknowledged_just_before_elsewhere(
    lab: Lab, base: int
) -> None:
    answered, unanswered = 0, 0
    all_servers = lab.file.servers
    with silenced(lab, "a4") as agent, Voice(agent) as voice:
        for number in range(ROUNDS):
            servers = all_servers[number % 3 :] + all_servers[: number % 3]
            port = 20_000 + number
            datagram = voice.register_bytes(base + number, port=port)
            if not any(voice.register(server, datagram, wait_s=1.0) for server in servers):
                continue  # nobody leads at this moment: it may or may not have been taken
            reply = voice.ask(servers[1], agent.eids[0], refresh=True, wait_s=0.5)
            answered += reply is not None
            unanswered += reply is None
            assert reply is None or ports(reply) == {port}, f"round {number}: {ports(reply)}"
            assert reply is None or all(one.authoritative for one in reply.records)
            if number % KILL_EVERY == KILL_EVERY - 1:
                kill_the_leader(lab)
    _LOG.info("%d refreshes answered, %d not", answered, unanswered)
    assert answered > ROUNDS * 0.8, f"{unanswered} were not answered"


def test_without_a_quorum_a_refresh_is_not_answered_and_the_next_server_is_asked(
    lab: Lab, base: int
) -> None:
    leader = wait_until(lambda: leader_of(lab), "all servers are back and know who leads")
    cut = next(one for one in lab.file.servers if one.name != leader)
    others = [one for one in lab.file.servers if one != cut]
    with silenced(lab, "a4") as agent, Voice(agent) as voice:
        datagram = voice.register_bytes(base + ROUNDS + 7, port=19_001)
        assert voice.register(others[0], datagram)
        rules = "add table inet pr; add chain inet pr x { type filter hook input priority 0; }; "
        rules += "add rule inet pr x udp dport 51821 drop"
        lab.run(cut.netns, "nft", rules)
        try:
            began = now()
            assert voice.ask(cut, agent.eids[0], refresh=True, wait_s=2.5) is None
            plain = wait_until(lambda: voice.ask(cut, agent.eids[0]), "the cut one answers")
            assert not any(one.authoritative for one in plain.records)
            changed = voice.register_bytes(base + ROUNDS + 8, port=19_002)
            assert voice.register(cut, changed, wait_s=2.0) is None, "an acknowledgement alone"
            assert voice.register(cut, datagram, wait_s=1.0) is None, "not even of the same again"
            assert ports(voice.register(others[0], changed)) == {19_002}
            reply = voice.ask(others[1], agent.eids[0], refresh=True)
            assert ports(reply) == {19_002}
            assert now() - began < 30
        finally:
            lab.run(cut.netns, "nft", "delete table inet pr")
        wait_until(
            lambda: ports(voice.ask(cut, agent.eids[0], refresh=True)) == {19_002},
            "the cut one is back",
        )
