from pathlib import Path

import pytest

from wgmap_chaos.lab import topology
from wgmap_chaos.lab.underlay import attach_script, bridge_script, forward_rules, host_script


@pytest.fixture
def usual(tmp_path: Path) -> topology.Topology:
    return topology.plan(tmp_path, 3, 4)


def test_each_host_gets_its_port_and_addresses(usual: topology.Topology) -> None:
    script = bridge_script(usual)
    for host in usual.hosts:
        assert f"name {host.port.near} type veth peer name {host.port.host}" in script
        assert f"link set dev {host.port.near} master {usual.bridge}\n" in script
        assert f"address add {host.underlay4} dev {host.port.host}\n" in host_script(host)
        assert f'device "{host.port.outer}"' in forward_rules(usual)


def test_a_port_is_never_on_the_bridge_in_both_ways(usual: topology.Topology) -> None:
    for relayed in (True, False):
        on_bridge: set[str] = {host.port.near for host in usual.hosts}
        for line in attach_script(usual, relayed=relayed).splitlines():
            name = line.split()[3]
            (on_bridge.discard if line.endswith("nomaster") else on_bridge.add)(name)
            per_host = [{host.port.near, host.port.inner} & on_bridge for host in usual.hosts]
            assert all(len(names) <= 1 for names in per_host)
        wanted = {host.port.inner if relayed else host.port.near for host in usual.hosts}
        assert on_bridge == wanted
