"""The collection's filters and tests, as plain functions: what a play decides by."""

import importlib.util
import ipaddress
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from wgmap.addresses import control_address
from wgmap.wg.keys import PrivateKey

PLUGINS = Path(__file__).parents[3] / "deploy/ansible/plugins"


def load(kind: str, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        f"rollout_{kind}_{name}", PLUGINS / kind / f"{name}.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CLUSTER, ENROLMENT = load("filter", "cluster"), load("filter", "enrolment")
MONITORING = load("filter", "monitoring")
DERIVED, SETTINGS = load("filter", "addresses"), load("filter", "settings")


def server(name: str, **changes: Any) -> dict[str, Any]:
    return {"name": name, "state": "follower", "applied": 5000, "fresh": True} | changes


def trouble(*servers: dict[str, Any], leader: str | None = "ms1") -> list[str]:
    found: list[str] = CLUSTER.trouble(json.dumps({"leader": leader, "servers": servers}))
    return found


def test_a_cluster_that_is_well_has_no_trouble() -> None:
    assert trouble(server("ms1"), server("ms2", applied=4500)) == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"state": "unreachable", "applied": None, "fresh": None}, "ms2 is unreachable"),
        ({"fresh": False}, "ms2 does not answer with authority"),
        ({"applied": 3000}, "ms2 is 2000 entries behind"),
    ],
)
def test_each_trouble_names_the_server(changes: dict[str, Any], says: str) -> None:
    assert trouble(server("ms1"), server("ms2", **changes)) == [says]


def test_a_server_that_still_runs_another_release_is_named() -> None:
    said = json.dumps({"leader": "ms1", "servers": [server("ms1", release="1"), server("ms2")]})
    assert CLUSTER.trouble(said, expected={"ms1": "1"}) == []
    assert CLUSTER.trouble(said, expected={"ms1": "2"}) == ["ms1 runs 1, not 2"]
    assert CLUSTER.trouble(said, expected={"ms2": "2"}) == ["ms2 runs None, not 2"]


def test_a_server_that_is_known_to_be_away_is_no_trouble() -> None:
    away = server("ms2", state="unreachable", applied=None, fresh=None)
    status = json.dumps({"leader": "ms1", "servers": [server("ms1"), away]})
    assert CLUSTER.trouble(status, ["ms2"]) == []
    assert CLUSTER.trouble(status, ["ms1"]) == ["ms2 is unreachable"]


def test_no_leader_and_no_answer_are_trouble() -> None:
    assert trouble(server("ms1"), leader=None) == ["there is no leader"]
    for text in ("", "{}", "null", '{"servers": []}'):
        assert CLUSTER.trouble(text) == ["the server does not tell its state"]


AGENT = {
    "name": "a1",
    "control_key": "K",
    "instance": 0,
    "prefixes": ["10.66.1.1/32", "fd66::1/128"],
}
PEER = {**AGENT, "prefixes": ["fd66::1/128", "10.66.1.1/32"], "revoked": False}


@pytest.mark.parametrize(
    ("known", "todo"),
    [
        ([], {"new": [AGENT]}),
        ([PEER], {}),
        ([{**PEER, "control_key": "L"}], {"changed": ["--control-key", "K"]}),
        (
            [{**PEER, "prefixes": ["10.66.1.1/32"]}],
            {"changed": ["--prefix", "10.66.1.1/32", "--prefix", "fd66::1/128"]},
        ),
        ([{**PEER, "revoked": True}], {"refused": "revoked"}),
        ([{**PEER, "instance": 7}], {"refused": "instance 7"}),
    ],
)
def test_who_is_enrolled_and_how(known: list[dict[str, Any]], todo: dict[str, Any]) -> None:
    found = ENROLMENT.enrolment([AGENT], json.dumps(known))
    assert found["new"] == todo.get("new", [])
    assert [one["arguments"] for one in found["changed"]] == (
        [todo["changed"]] if "changed" in todo else []
    )
    assert len(found["refused"]) == ("refused" in todo)
    assert all(todo["refused"] in text for text in found["refused"])


def test_an_address_is_derived_as_agents_do() -> None:
    key = PrivateKey.generate().public
    prefix = ipaddress.IPv6Network("fd77:676d:6170::/64")
    derived = DERIVED.derived_address(str(key), str(prefix))
    assert derived == str(control_address(prefix, key))


@pytest.mark.parametrize(("key", "prefix"), [("no", "fd77::/64"), ("AAAA", "fd77::/64")])
def test_what_is_no_key_is_refused(key: str, prefix: str) -> None:
    with pytest.raises(ValueError, match="derived_address"):
        DERIVED.derived_address(key, prefix)


def test_hosts_with_a_page_on_an_address_are_asked() -> None:
    hostvars = {
        "ms1": {"map_server_metrics": "192.0.2.1:9342"},
        "ms2": {"map_server_metrics": "/run/wgmap/metrics.sock"},
        "ms3": {"map_server_metrics": ""},
        "ms4": {},
    }
    assert MONITORING.scrape_targets(list(hostvars), hostvars, "map_server_metrics") == [
        {"targets": ["192.0.2.1:9342"], "labels": {"instance": "ms1"}}
    ]


GOOD = {
    "common_wheelhouse": "dist/wgmap-wheelhouse-0.1.0-cp311-linux_x86_64.tar",
    "common_overlay": ["10.66.0.0/16", "fd66::/32"],
    "common_control_prefix": "fd77:676d:6170::/64",
    "map_server_name": "ms1.example",
    "map_server_endpoint": "2001:db8::1",
    "map_server_mesh_prefix": "fd77:676d:6d65::/64",
    "map_server_metrics": "",
    "agent_name": "a1",
    "agent_prefixes": ["10.66.1.1/32", "fd66::1/128"],
    "agent_overlay": ["10.66.0.0/16", "fd66::/32"],
    "agent_endpoint_allow": [],
    "agent_metrics": "192.0.2.1:9343",
    "common_keep_releases": 3,
    "map_server_staleness_s": 1.0,
    "map_server_patience_s": "15",  # as `-e` gives it
    "map_server_raft_port": 4343,
    "map_server_mesh_port": 51821,
    "map_server_control_port": 51822,
    "map_server_mesh_interface": "wgm-mesh",
    "map_server_control_interface": "wgm-ctl",
    "agent_instance": 0,
    "agent_tun_mtu": 1420,
    "agent_idle_s": 900,
    "agent_patience_s": 120,
    "agent_jitter_s": 0,
    "agent_batch": "20%",
    "agent_control_port": 51822,
    "agent_data_port": 51820,
    "agent_second_data_port": 51830,
    "agent_tun_interface": "wgm-tun",
    "agent_control_interface": "wgm-ctl",
    "agent_data_interface": "wgm-data",
    "agent_second_data_interface": "wgm-data2",
}
PORTS: list[Any] = [0, 65536, "many", -1, 1.5]
INTERFACES: list[Any] = ["", "a name", "wgm-data-of-agent", "a/b", ".."]
WRONG: dict[str, list[Any]] = {
    "common_wheelhouse": ["wgmap.tar", "wgmap-wheelhouse-x-cp311-linux_x86_64.tar"],
    "common_overlay": [[], "10.66.0.0/16", ["10.66.0.1/16"], [7]],
    "common_control_prefix": ["fd77::/48", "10.0.0.0/24", None],
    "map_server_name": ["", "ms 1", "x" * 64],
    "map_server_endpoint": ["ms1.example", "", None, "192.0.2.1:51822"],
    "map_server_mesh_prefix": ["fd77::1/64"],
    "map_server_metrics": ["9342", "192.0.2.1"],
    "agent_name": ["-a"],
    "agent_prefixes": [[], "10.66.1.1/32", ["10.66.1.1"], ["10.67.0.1/32"], ["fd67::/64"]],
    "agent_overlay": [["10.66.0.0/33"]],
    "agent_endpoint_allow": ["192.0.2.0/24", ["192.0.2.1/24"]],
    "agent_metrics": ["no"],
    "common_keep_releases": [0, "all"],
    "map_server_staleness_s": [0.1, 61, "soon", None],
    "map_server_patience_s": [0],
    "map_server_raft_port": PORTS,
    "agent_instance": [-1, 1 << 32],
    "agent_tun_mtu": [1279, 65536],
    "agent_idle_s": [0, "never"],
    "agent_patience_s": [0],
    "agent_jitter_s": [-1, "some"],
    "agent_batch": [0, "0%", "half", [], ["20%", 0]],
    "map_server_mesh_port": PORTS,
    "map_server_control_port": PORTS,
    "map_server_mesh_interface": INTERFACES,
    "map_server_control_interface": INTERFACES,
    "agent_control_port": PORTS,
    "agent_data_port": PORTS,
    "agent_second_data_port": PORTS,
    "agent_tun_interface": INTERFACES,
    "agent_control_interface": INTERFACES,
    "agent_data_interface": INTERFACES,
    "agent_second_data_interface": INTERFACES,
}


def test_good_settings_are_let_through() -> None:
    assert SETTINGS.wrong_settings(GOOD) == []


def test_every_setting_that_is_judged_is_tested() -> None:
    assert set(SETTINGS.CHECKS) == set(WRONG)


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in WRONG.items() for value in values]
)
def test_a_wrong_setting_is_named_and_is_the_only_one(name: str, value: Any) -> None:
    [found] = SETTINGS.wrong_settings(GOOD | {name: value})
    assert found.startswith(f"{name}: ")


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("map_server_control_port", "map_server_mesh_port"),
        ("map_server_control_interface", "map_server_mesh_interface"),
        ("agent_second_data_port", "agent_data_port"),
        ("agent_second_data_interface", "agent_tun_interface"),
    ],
)
def test_what_no_two_may_share_is_named(name: str, other: str) -> None:
    found = SETTINGS.wrong_settings(GOOD | {name: GOOD[other]})
    assert found == [f"{name}: {GOOD[other]} is {other} too"]


def test_all_that_is_wrong_is_said_at_once() -> None:
    found = SETTINGS.wrong_settings({name: values[0] for name, values in WRONG.items()})
    assert [one.partition(":")[0] for one in found] == list(WRONG)
