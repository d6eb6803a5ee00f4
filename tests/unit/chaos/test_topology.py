import re
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wgmap.errors import ConfigError
from wgmap_chaos.lab import topology
from wgmap_chaos.lab.topology import MAX_AGENTS, MAX_SERVERS, Topology, plan

INTERFACE = re.compile(r"[A-Za-z0-9_.=+-]{1,15}")


@pytest.fixture
def largest(tmp_path: Path) -> Topology:
    return plan(tmp_path, MAX_SERVERS, MAX_AGENTS)


def interfaces(lab: Topology) -> list[str]:
    names = [lab.bridge]
    for host in lab.hosts:
        port = host.port
        names += [port.host, port.near, port.outer, port.inner, host.control_interface]
    names += [server.mesh_interface for server in lab.servers]
    for agent in lab.agents:
        names += [agent.data_interface, agent.tun]
    return names


def test_interface_names_fit_and_are_unique_in_the_largest_lab(largest: Topology) -> None:
    names = interfaces(largest)
    assert len(names) == 1 + 6 * MAX_SERVERS + 7 * MAX_AGENTS
    assert len(set(names)) == len(names)
    assert [name for name in names if not INTERFACE.fullmatch(name)] == []


def test_every_name_begins_with_what_removal_looks_for(largest: Topology) -> None:
    start = topology.interface_prefix(largest.id)
    assert all(name.startswith(start) for name in interfaces(largest))
    start = topology.netns_prefix(largest.id)
    assert all(name.startswith(start) for name in largest.namespaces)
    assert len(set(largest.namespaces)) == 1 + MAX_SERVERS + MAX_AGENTS


def test_names_differ_between_directories(tmp_path: Path) -> None:
    one, two = plan(tmp_path / "one", 3, 4), plan(tmp_path / "two", 3, 4)
    assert not set(interfaces(one)) & set(interfaces(two))
    assert not set(one.namespaces) & set(two.namespaces)
    assert one.paths.run != two.paths.run


def test_the_id_is_that_of_the_real_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (tmp_path / "link").symlink_to(real)
    monkeypatch.chdir(tmp_path)
    same = {topology.lab_id(path) for path in (real, tmp_path / "link", Path("real"))}
    assert len(same) == 1
    assert topology.paths(tmp_path / "link").directory == real


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40))
def test_the_id_is_six_characters_for_any_path(text: str) -> None:
    assert re.fullmatch("[a-z2-7]{6}", topology.lab_id(Path("/") / text))


def test_addresses_of_the_usual_lab(tmp_path: Path) -> None:
    lab = plan(tmp_path, 3, 4)
    assert [str(server.underlay4) for server in lab.servers] == [
        "192.0.2.1/24",
        "192.0.2.2/24",
        "192.0.2.3/24",
    ]
    assert str(lab.servers[2].underlay6) == "2001:db8:6::3/64"
    assert str(lab.servers[1].control) == "fd77:676d:6170::2"
    assert str(lab.servers[1].mesh) == "fd77:676d:6d65::2"
    last = lab.agents[3]
    assert (str(last.underlay4), str(last.underlay6)) == ("192.0.2.14/24", "2001:db8:6::14/64")
    assert last.eids == (ip_network("10.66.4.1/32"), ip_network("fd66::4/128"))
    assert [host.name for host in lab.hosts] == ["ms1", "ms2", "ms3", "a1", "a2", "a3", "a4"]


def test_no_address_is_given_twice_and_all_lie_in_their_networks(largest: Topology) -> None:
    fours = [host.underlay4.ip for host in largest.hosts]
    sixes = [host.underlay6.ip for host in largest.hosts]
    assert len(set(fours)) == len(set(sixes)) == len(largest.hosts)
    assert ip_address("192.0.2.255") not in fours
    assert all(address in topology.UNDERLAY4 for address in fours)
    assert all(address in topology.UNDERLAY6 for address in sixes)
    eids = [eid for agent in largest.agents for eid in agent.eids]
    assert len(set(eids)) == 2 * MAX_AGENTS
    assert all(
        any(eid.version == wide.version and eid.subnet_of(wide) for wide in topology.OVERLAY)  # type: ignore[arg-type]
        for eid in eids
    )


@pytest.mark.parametrize(("servers", "agents"), [(0, 4), (10, 4), (3, -1), (3, 245)])
def test_numbers_out_of_bounds_are_refused(tmp_path: Path, servers: int, agents: int) -> None:
    with pytest.raises(ConfigError, match=r"must be \d to \d+, not"):
        plan(tmp_path, servers, agents)


def test_socket_paths_stay_short_in_a_deep_directory(tmp_path: Path) -> None:
    lab = plan(tmp_path / ("deep" * 40), MAX_SERVERS, MAX_AGENTS)
    assert max(len(str(lab.paths.socket(host.name))) for host in lab.hosts) < 60


def test_what_perishes_with_the_lab_is_not_what_the_operator_wants_to_read(tmp_path: Path) -> None:
    paths = plan(tmp_path, 1, 0).paths
    assert paths.logs not in paths.perishable
    assert tmp_path not in paths.perishable
