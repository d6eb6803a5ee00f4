import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wgmap.config import parse
from wgmap.wg.keys import PrivateKey
from wgmap_agent.config import AgentConfig
from wgmap_chaos.lab import toml
from wgmap_chaos.lab.settings import agent_settings, server_settings
from wgmap_chaos.lab.topology import plan
from wgmap_cluster.config import ServerConfig

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
values = texts | st.booleans() | st.integers(-(1 << 62), 1 << 62) | st.lists(texts, max_size=3)
tables = st.dictionaries(st.from_regex(r"\A[a-z_]{1,8}\Z"), values, max_size=4)


@given(tables, tables, st.lists(tables, min_size=1, max_size=3))
def test_what_is_written_reads_the_same(top: Any, inner: Any, many: Any) -> None:
    document = {**top, "Inner": inner, "Many": many}
    assert tomllib.loads(toml.dumps(document)) == document


def test_none_is_left_out_and_the_unknown_refused() -> None:
    assert tomllib.loads(toml.dumps({"a": None, "b": 1})) == {"b": 1}
    with pytest.raises(TypeError, match="no TOML for object"):
        toml.dumps({"a": object()})


def key() -> str:
    return str(PrivateKey.generate().public)


def test_a_server_accepts_its_configuration(tmp_path: Path) -> None:
    lab = plan(tmp_path, 3, 4)
    keys = {server.name: {"control_key": key(), "mesh_key": key()} for server in lab.servers}
    text = toml.dumps(server_settings(lab, lab.servers[1], keys))
    config = parse(text.encode(), ServerConfig, "test")
    assert config.server.name == "ms2"
    assert config.mesh is not None
    assert config.mesh.interface == lab.servers[1].mesh_interface
    assert [str(entry.control_key) for entry in config.bootstrap.server] == [
        keys[server.name]["control_key"] for server in lab.servers
    ]
    assert [str(entry.underlay) for entry in config.bootstrap.server] == [
        "192.0.2.1",
        "192.0.2.2",
        "192.0.2.3",
    ]
    assert [str(prefix) for prefix in config.overlay.prefixes] == ["10.66.0.0/16", "fd66::/64"]


PRINTED = """
[agent]
name = "a2"
prefixes = ["10.66.2.1/32", "fd66::2/128"]
overlay = ["10.66.0.0/16", "fd66::/64"]
[control]
keepalive_s = 7
[[server]]
name = "ms1"
control_key = "{key}"
endpoint = "192.0.2.1:51822"
control_address = "fd77:676d:6170::1"
"""


def test_an_agent_accepts_what_the_lab_makes_of_the_printed_configuration(tmp_path: Path) -> None:
    lab = plan(tmp_path, 1, 2)
    agent = lab.agents[1]
    settings = agent_settings(lab, agent, PRINTED.format(key=key()))
    config = parse(toml.dumps(settings).encode(), AgentConfig, "test")
    assert (config.tun.interface, config.data.interface) == (agent.tun, agent.data_interface)
    assert config.control.interface == agent.control_interface
    assert config.control.keepalive_s == 7  # what is not the lab's business stays
    assert config.agent.state_dir == lab.paths.state("a2")
    assert config.agent.socket == lab.paths.socket("a2")
    assert len(config.server) == 1
