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
DERIVED, ADDRESSES = load("filter", "addresses"), load("test", "addresses")


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


def test_wrong_addresses_of_an_inventory_are_noticed() -> None:
    assert ADDRESSES.ip_address("192.0.2.1")
    assert not ADDRESSES.ip_address("ms1.example")
    assert ADDRESSES.ip_prefix("10.66.0.0/16")
    assert not ADDRESSES.ip_prefix("10.66.0.1/16")
    assert not ADDRESSES.ip_prefix("10.66.0.1")
    assert ADDRESSES.inside("fd66::1/128", ["10.66.0.0/16", "fd66::/32"])
    assert not ADDRESSES.inside("10.67.0.1/32", ["10.66.0.0/16", "fd66::/32"])
