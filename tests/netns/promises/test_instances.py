"""Two virtual networks with the same addresses, over real WireGuard: nothing of one in the other.

a1 and a2 are in instance 0. The hosts of a3 and a4 are enrolled again, as b1 and b2 of instance 7
with the very prefixes of a1 and a2.
"""

import ipaddress
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.lab import Lab, execute, program, running_lab, wait_until
from support.voice import KEY, Voice, ports
from wgmap.addresses import IPNetwork, control_address, host_prefix
from wgmap.lisp.messages import Locator
from wgmap.wg.keys import PublicKey
from wgmap_chaos.lab import removal, toml, topology
from wgmap_chaos.lab.inventory import AgentEntry
from wgmap_chaos.lab.settings import agent_settings

pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.timeout(240)]
INSTANCE = 7
NEW = bytes([70]) + KEY[1:]


@pytest.fixture
def twice(tmp_path: Path) -> Iterator[Lab]:
    with running_lab(tmp_path) as lab:
        a1, a2 = lab.file.agents[:2]
        for host, name, twin in (("a3", "b1", a1), ("a4", "b2", a2)):
            enrol_again(lab, lab.file.agent(host), name, twin)
        lab.chaos("start-agents", "a3", "a4")
        for host in ("a3", "a4"):
            wait_until(
                lambda: (lab.agent_status(lab.file.agent(host)) or {}).get("registered"),  # noqa: B023
                f"{host} is registered in the other instance",
            )
        yield lab


def enrol_again(lab: Lab, agent: AgentEntry, name: str, twin: AgentEntry) -> None:
    """Give a host new keys, and enrol it in the other instance with the prefixes of ``twin``."""
    pid = agent.pids["agent"]
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not removal.alive(pid), f"{agent.name} is dead")
    for secret in ("control.key", "data.key", "state"):
        (agent.state_dir / secret).unlink()
    argv = [program("wgmap-agent"), "keygen", "--dir", str(agent.state_dir), "--json"]
    made = execute(*argv)
    assert made.returncode == 0, made.stderr
    prefixes = [word for eid in twin.eids for word in ("--prefix", str(eid))]
    printed = lab.wgmap(
        *("peer", "add", name, "--control-key", json.loads(made.stdout)["control_key"], *prefixes),
        *("--instance", str(INSTANCE), "--endpoint-allow", "192.0.2.0/24"),
        *("--endpoint-allow", "2001:db8:6::/64"),
    )
    plan = topology.plan(lab.directory, 3, 4)
    place = next(one for one in plan.agents if one.name == agent.name)
    agent.config.write_text(toml.dumps(agent_settings(plan, place, printed)))


def data_key(lab: Lab, agent: AgentEntry) -> str:
    return lab.run(agent.netns, "wg", "show", agent.data_interface, "public-key").strip()


def peers(lab: Lab, agent: AgentEntry) -> dict[str, set[IPNetwork]]:
    """Return the data peers of a host with their prefixes."""
    text = lab.run(agent.netns, "wg", "show", agent.data_interface, "allowed-ips")
    found: dict[str, set[IPNetwork]] = {}
    for line in text.splitlines():
        key, _, prefixes = line.partition("\t")
        found[key] = {ipaddress.ip_network(one) for one in prefixes.split() if one != "(none)"}
    return found


def control_of(lab: Lab, agent: AgentEntry) -> AgentEntry:
    """Return the entry of a host with the control address that it has now."""
    key = lab.run(agent.netns, "wg", "show", agent.control_interface, "public-key").strip()
    prefix = ipaddress.IPv6Network("fd77:676d:6170::/64")
    return agent.model_copy(update={"control": control_address(prefix, PublicKey.parse(key))})


def test_instances_with_the_same_addresses_never_meet(twice: Lab, base: int) -> None:
    lab = twice
    a1, a2, b1, b2 = lab.file.agents
    shared, prefix = a2.eids[0], host_prefix(a2.eids[0])
    keys = {agent.name: data_key(lab, agent) for agent in lab.file.agents}

    # Lookups and tunnels: the same question, in each network its own answer.
    for asker in (a1, b1):
        assert lab.ping(asker, a2, eid=shared) is not None
    for here, there in ((a1, a2), (b1, b2)):
        assert prefix in peers(lab, here)[keys[there.name]]
        assert set(peers(lab, here)) == {keys[there.name]}
        assert set(peers(lab, there)) == {keys[here.name]}, "the push stays in its network"
    table = {instance: resolve(lab, str(shared), instance)["key"] for instance in (0, INSTANCE)}
    assert table == {0: keys["a2"], INSTANCE: keys["a4"]}

    # A change in one is pushed there and nowhere else; nobody reaches into the other.
    pid = b2.pids["agent"]
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not removal.alive(pid), "b2 is dead")
    with Voice(control_of(lab, b2)) as voice:
        change_and_trespass(lab, voice, base, twin=a2, at=b2)
    new = str(PublicKey(NEW))
    wait_until(lambda: new in peers(lab, b1), "b1 is told of the new key")
    assert set(peers(lab, a1)) == {keys["a2"]}, "a1 is not"
    assert resolve(lab, str(shared), 0)["key"] == keys["a2"]

    # A revocation takes the peer out of its own network alone.
    lab.wgmap("peer", "revoke", "b2", check=False)
    wait_until(lambda: new not in peers(lab, b1), "b1 has dropped it")
    assert lab.ping(a1, a2, eid=shared) is not None
    assert set(peers(lab, a1)) == {keys["a2"]}
    assert not resolve(lab, str(shared), INSTANCE)["found"]
    assert resolve(lab, str(shared), 0)["found"]


def resolve(lab: Lab, eid: str, instance: int) -> dict[str, object]:
    arguments = ("resolve", eid, "--json", "--instance", str(instance))
    found: dict[str, object] = json.loads(lab.wgmap(*arguments, check=False))
    return found


def change_and_trespass(
    lab: Lab, voice: Voice, base: int, twin: AgentEntry, at: AgentEntry
) -> None:
    """Change b2's key in its own network, and try the same and a question in the other one."""
    server = lab.file.servers[0]
    locator = Locator(at.underlay[0], 51820, NEW)
    own = [host_prefix(eid) for eid in twin.eids]
    foreign = voice.register_bytes(base + 1, locator, prefixes=own, instance=0)
    assert voice.register(server, foreign, wait_s=1.0) is None
    assert voice.ask(server, twin.eids[0], instance=0) is None
    right = voice.register_bytes(base + 2, locator, prefixes=own, instance=INSTANCE)
    wait_until(lambda: voice.register(server, right), "it is right in its own network")
    assert ports(voice.ask(server, twin.eids[0], wait_s=5, instance=INSTANCE)) == {51820}
