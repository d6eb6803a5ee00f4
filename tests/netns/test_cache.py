"""Every map server is dead, and agents are rebooted: real daemons reach their recent peers."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import msgpack
import pytest

from support.lab import Lab, execute, program, running_lab, wait_until
from wgmap_agent.runner import cachefile
from wgmap_chaos.lab import removal
from wgmap_chaos.lab.inventory import AgentEntry

pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.timeout(240)]

CONTACT_S = 9.0  # below what packets are held for


@pytest.fixture(scope="module")
def own_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab whose peers can be revoked."""
    with running_lab(tmp_path_factory.mktemp("cache"), "--agents", "3") as lab:
        yield lab


def kill_servers(lab: Lab) -> None:
    pids = [pid for server in lab.file.servers for pid in server.pids.values() if pid is not None]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not any(removal.alive(pid) for pid in pids), "the servers are dead")


def power_off(lab: Lab, *agents: AgentEntry) -> None:
    """Take agents away with all their interfaces; only their state directories stay."""
    for agent in agents:
        pid = lab.file.agent(agent.name).pids["agent"]
        if pid is not None and removal.alive(pid):
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda p=pid: not removal.alive(p), f"{agent.name} is dead")  # type: ignore[misc]
        inside = ("ip", "netns", "exec", agent.netns)
        done = execute(*inside, program("wgmap-agent"), "down", "--config", str(agent.config))
        assert done.returncode == 0, done.stderr
        assert agent.data_interface not in lab.run(agent.netns, "ip", "-o", "link")


@contextmanager
def powered_on(lab: Lab, *agents: AgentEntry) -> Iterator[None]:
    """Start agents that cannot register: no server lives."""
    with ExitStack() as stack:
        for agent in agents:
            log = stack.enter_context((lab.directory / f"{agent.name}-again.log").open("a"))
            argv = ["ip", "netns", "exec", agent.netns, program("wgmap-agent"), "run"]
            process = subprocess.Popen(
                [*argv, "--config", str(agent.config)], stdout=log, stderr=log
            )
            stack.callback(process.wait, 10)
            stack.callback(process.terminate)
        for agent in agents:
            wait_until(lambda a=agent: lab.agent_status(a), f"{agent.name} answers")  # type: ignore[misc]
        yield


def saved_peers(agent: AgentEntry) -> int:
    """Count the peers in an agent's cache on disk."""
    try:
        data = (agent.state_dir / cachefile.CACHE_FILE).read_bytes()
    except FileNotFoundError:
        return 0
    owner = msgpack.unpackb(data[14:])["owner"]
    return len(cachefile.decode(data, owner).peers)


def counter(lab: Lab, agent: AgentEntry, name: str) -> int:
    value: int = lab.agent_status(agent)["counters"].get(name, 0)
    return value


def all_remembered(lab: Lab, agent: AgentEntry) -> bool:
    """Say whether every tunnel stands and every peer is in the cache."""
    status: dict[str, Any] = lab.agent_status(agent)
    standing = [peer for peer in status["peers"] if peer["state"] != "pending"]
    assert status["peers"]
    cached: int = status["counters"]["now.cached_peers"]
    return len(standing) == len(status["peers"]) <= cached


@pytest.mark.parametrize(("delay_ms", "both"), [(0, False), (20, False), (20, True)])
def test_first_contact_without_any_server(own_lab: Lab, delay_ms: int, both: bool) -> None:
    lab = own_lab
    one, other = lab.file.agents[:2]
    with lab.underlay(delay_ms=delay_ms):
        for eid in other.eids:
            assert lab.ping(one, other, eid) is not None
        for agent in (one, other):
            wait_until(lambda a=agent: saved_peers(a) >= 1, f"{agent.name} has saved", 40)  # type: ignore[misc]
        gone = (one, other) if both else (one,)
        kill_servers(lab)
        power_off(lab, *gone)
        with powered_on(lab, *gone):
            first, second = (lab.ping(one, other, eid, CONTACT_S) for eid in other.eids)
            assert first is not None
            assert second is not None
            assert counter(lab, one, "request.recalled") == 1
            assert counter(lab, one, "now.unconfirmed_peers") == 1
            assert lab.ping(other, one) is not None
        lab.chaos("start-servers")
        lab.chaos("start-agents")


def knows(lab: Lab, agent: AgentEntry, other: AgentEntry) -> bool:
    """Tell whether an agent has a tunnel to another."""
    eids = {eid for peer in lab.agent_status(agent)["peers"] for eid in peer["eids"]}
    return bool(eids & {f"{other.eids[0]}/32", f"{other.eids[1]}/128"})


def test_a_peer_revoked_while_away_is_cut_as_soon_as_a_server_is_back(own_lab: Lab) -> None:
    lab = own_lab
    one, _, third = lab.file.agents
    assert lab.ping(one, third) is not None
    wait_until(lambda: all_remembered(lab, one), "it is remembered")
    # The cache is saved at the end of a run, whatever was saved before.
    pid = lab.file.agent(one.name).pids["agent"]
    assert pid is not None
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not removal.alive(pid), "it ends")
    assert saved_peers(one) >= 1
    power_off(lab, one)
    lab.wgmap("peer", "revoke", third.name)
    kill_servers(lab)
    with powered_on(lab, one):
        assert lab.ping(one, third, wait_s=CONTACT_S) is not None  # nobody could tell
        lab.chaos("start-servers", lab.file.servers[0].name, lab.file.servers[1].name)
        wait_until(lambda: not knows(lab, one, third), "it is cut", 30)
        assert lab.ping(one, third, wait_s=1.0) is None
    lab.chaos("start-servers")
    kill_servers(lab)
    with powered_on(lab, one):  # and it is not in the cache any more
        assert lab.ping(one, third, wait_s=3.0) is None
        assert counter(lab, one, "request.recalled") == 0
