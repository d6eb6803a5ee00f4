"""From empty machines to agents that reach each other; and again, which changes nothing."""

import itertools
import stat

import pytest

from rollout.fleet import AGENTS, PROGRAMS, Fleet, eid
from wgmap_chaos.demo.ping import first_reply_ms

pytestmark = [pytest.mark.netns, pytest.mark.timeout(3600)]
REPLY_S = 5.0
PRIVATE = stat.S_IFREG | 0o600


def test_looking_at_empty_machines_changes_nothing(fleet: Fleet) -> None:
    recap = fleet.play("deploy", "--check")
    assert set(recap.changed) >= {*fleet.servers, *AGENTS}
    for name in (*fleet.servers, *AGENTS):
        assert fleet.on(name, "ls -d /opt/wgmap /etc/wgmap /var/lib/wgmap*", check=False) == ""


def test_a_deployment_leaves_agents_that_are_registered(fleet: Fleet) -> None:
    fleet.play("deploy")
    fleet.settle()
    peers = fleet.peers()
    assert sorted(peers) == sorted(AGENTS)
    assert all(peer["registered"] for peer in peers.values())


@pytest.mark.parametrize("machine", ["ms1", "a1"])
def test_shells_complete_the_programs(fleet: Fleet, machine: str) -> None:
    assert fleet.completed(machine, "wgmap", "peer", "re") == ["revoke"]
    assert fleet.completed(machine, "wgmap-agent", "ro") == ["rotate-key"]
    assert fleet.completed(machine, "wgmap-server", "che") == ["check-state"]
    assert fleet.known_to_zsh(machine) == {name: f"_{name}" for name in PROGRAMS}


def test_the_same_again_changes_nothing(fleet: Fleet) -> None:
    for arguments in ((), ("--check",), ("--limit", "a1")):
        recap = fleet.play("deploy", *arguments)
        assert set(recap.changed.values()) == {0}, (arguments, recap.changed, recap.output[-8000:])


@pytest.mark.parametrize(("source", "target"), list(itertools.permutations(AGENTS, 2)))
def test_agents_reach_each_other(fleet: Fleet, source: str, target: str) -> None:
    netns = fleet.site.machines[source].netns
    assert first_reply_ms(netns, eid(target), REPLY_S) is not None


def test_private_keys_stay_where_they_were_made(fleet: Fleet) -> None:
    secrets = {}
    for name in (*fleet.servers, *AGENTS):
        found = fleet.on(name, "find /var/lib/wgmap* -name '*.key' -printf '%m %u %p\\n'").split(
            "\n"
        )
        assert len(found) == 2, found
        for line in found:
            mode, user, path = line.split()
            assert (mode, user[:6]) == ("600", "wgmap-"), line
            secrets[name, path] = fleet.on(name, f"cat {path}")
    assert len(set(secrets.values())) == len(secrets)
    written = (fleet.site.directory / "inventory.yml", fleet.site.log)  # on the control host
    for text in (path.read_text() for path in written):
        assert not any(secret in text for secret in secrets.values())
