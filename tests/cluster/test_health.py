"""What a server tells Prometheus and probes, while its parts are stopped and killed."""

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.probe import Probe
from support.supervised import Server, wait_for
from support.tables import request
from wgmap_cluster.cli.main import main as wgmap


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(
        tmp_path,
        replica="wgmap_cluster.replica",
        sections=f'[metrics]\nlisten = "{tmp_path}/metrics.sock"\n',
    )
    try:
        made.ready()
        yield made
    finally:
        made.close()


@pytest.fixture
def probe(server: Server, tmp_path: Path) -> Probe:
    made = Probe(tmp_path / "metrics.sock")
    wait_for(made.well, "a server that is ready says so")
    return made


def test_a_stopped_responder_is_not_ready(server: Server, probe: Probe) -> None:
    responder = server.pids()["responder"]
    os.kill(responder, signal.SIGSTOP)
    try:
        wait_for(lambda: probe.ready().get("responder") is False, "the responder is missed")
        assert probe.get("/health/live")[0] == 200
        assert probe.value("wgmap_server_ready") == 0
    finally:
        os.kill(responder, signal.SIGCONT)
    wait_for(probe.well, "ready again")


def test_killed_parts_come_back_and_so_does_readiness(server: Server, probe: Probe) -> None:
    for name in ("responder", "replica"):
        old = server.pids()[name]
        os.kill(old, signal.SIGKILL)
        wait_for(lambda: server.pids()[name] != old, f"{name} runs again")  # noqa: B023
        wait_for(probe.well, "ready again")


def test_what_is_done_is_counted(server: Server, probe: Probe, tmp_path: Path) -> None:
    admin = ["--socket", str(tmp_path / "admin.sock")]
    add = ["peer", "add", "a1", "--prefix", "10.66.1.0/24", "--control-address", "127.0.0.31"]
    assert wgmap([*admin, *add]) == 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as agent:
        agent.bind(("127.0.0.31", 0))
        agent.settimeout(5)
        for _ in range(5):
            agent.sendto(request("10.66.2.1/32"), server.address)
            assert agent.recv(4096)
    name = "wgmap_server_lookup_seconds_count"
    wait_for(lambda: probe.value(name) == 5, "lookups are timed")
    assert probe.value("wgmap_server_responder_request_received_total") == 5
    assert probe.value("wgmap_server_peers") == 1
    assert probe.value("wgmap_server_instance_peers", instance_id="0") == 1
    assert probe.value("wgmap_server_fresh") == 1
    assert 0 < probe.value("wgmap_server_lease_left_seconds") <= 1
    assert probe.value("wgmap_server_log_leading") == 1
    assert probe.value("wgmap_server_log_commit") >= probe.value("wgmap_server_log_applied") > 0
    syncs = probe.value("wgmap_server_log_sync_seconds_count")
    assert syncs > 0
    assert probe.value("wgmap_server_log_sync_seconds_sum") < 10 * syncs
