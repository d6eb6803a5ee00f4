"""The other side forgets a new session right after its response: what was held arrives even so.

To the initiator the session stands. WireGuard does this by itself where it gets an initiation
twice at one moment (tests/sim/agent/test_wireguard_model.py); here it is done by hand.
"""

from concurrent.futures import ThreadPoolExecutor

import pytest

from support.lab import Lab, wait_until
from wgmap_chaos.lab.inventory import AgentEntry

pytestmark = [pytest.mark.netns, pytest.mark.slow]

FAR_MS = 80  # one way: so long after its response comes the first packet, twice
TRIES = 5  # on a busy machine that is too short


def sent_again(lab: Lab) -> int:
    """Count the sessions of both agents that were replaced, and what they took sent again."""
    both = (lab.agent_status(agent)["counters"] for agent in lab.file.agents[:2])
    return sum(one.get("peer.sent_again", 0) for one in both)


def forgets(lab: Lab, agent: AgentEntry, peer: AgentEntry) -> bool:
    """Take the session with a peer away from an agent that has answered; False: it has not yet."""
    shown = lab.run(agent.netns, "wg", "show", agent.data_interface, "dump").splitlines()[1:]
    (found, *_) = (*(line for line in shown if f"{peer.eids[0]}/32" in line), "")
    if not found:
        return False
    key, _, endpoint, allowed, handshake, received, *_ = found.split("\t")
    if int(received) == 0:
        return False
    if handshake == "0":
        anew = ("peer", key, "remove", "peer", key, "endpoint", endpoint, "allowed-ips", allowed)
        lab.run(agent.netns, "wg", "set", agent.data_interface, *anew)
    return True


def test_what_was_held_is_sent_again_in_the_next_session(lab: Lab) -> None:
    one, other = lab.file.agents[:2]
    with lab.underlay(delay_ms=FAR_MS), ThreadPoolExecutor(1) as pool:
        for _ in range(TRIES):
            lab.forget(one, other)
            before = sent_again(lab)
            reply = pool.submit(lab.ping, one, other)
            wait_until(lambda: forgets(lab, other, one), "it has answered")
            assert reply.result() is not None, "the one packet that was sent is lost"
            if sent_again(lab) > before:  # else it had arrived before its session was taken away
                return
    pytest.fail("the first packet was always sooner")
