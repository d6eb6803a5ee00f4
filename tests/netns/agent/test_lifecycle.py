"""The life of an agent on a real machine: killed, restarted, moved, taken down."""

import asyncio
import json
import subprocess
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from support.agents import PROGRAM, AgentHost
from support.eventually import eventually
from support.fleet import Fleet, fleet
from support.flows import Flow, exchange, flow
from support.netns import WIREGUARD_SOCKETS

pytestmark = [pytest.mark.netns, pytest.mark.timeout(180)]


async def contact(bed: Fleet) -> None:
    """Let them meet in both families, and wait until both kernels carry it without the agents."""
    for target in bed.two.eids:
        assert (await exchange(bed.one.namespace, bed.two.namespace, target, 5)).lost == []
    await eventually(
        lambda: leads_to(bed.one, bed.two) and leads_to(bed.two, bed.one), deadline_s=10
    )


def leads_to(agent: AgentHost, other: AgentHost) -> bool:
    """Tell whether the agent's kernel sends to both EIDs of the other through the tunnel."""
    routes = [agent.namespace.ip("route", "get", eid) for eid in other.eids]
    return all(f"dev {agent.data} " in route for route in routes)


def states(agent: AgentHost) -> list[str]:
    return [peer["state"] for peer in agent.status()["peers"]]


def flow_to_two(bed: Fleet, family: int = 0) -> AbstractAsyncContextManager[Flow]:
    return flow(bed.one.namespace, bed.two.namespace, bed.two.eids[family])


@pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
async def test_a_killed_agent_takes_no_packet_with_it_and_a_new_one_adopts(
    tmp_path: Path, family: int
) -> None:
    async with fleet(tmp_path, 1) as bed:
        await contact(bed)
        carriers = bed.one.carriers(), bed.two.carriers()
        async with flow_to_two(bed, family) as killed:
            bed.one.kill()
            bed.two.kill()
            await asyncio.sleep(1.0)
        assert killed.lost == []
        async with flow_to_two(bed, family) as restarted:
            await asyncio.gather(*(asyncio.to_thread(a.start) for a in (bed.one, bed.two)))
            await eventually(lambda: states(bed.one) == ["up"], deadline_s=10)
        assert restarted.lost == []
        assert (bed.one.carriers(), bed.two.carriers()) == carriers
        [peer] = bed.one.status()["peers"]
        assert set(peer["eids"]) == {str(prefix) for prefix in bed.two.prefixes}
        assert "peer.kicked" not in bed.one.status()["counters"]


@pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
async def test_an_upgrade_loses_no_packet(tmp_path: Path, family: int) -> None:
    """Stopped as a service manager does, and started again, with 100 packets a second."""
    async with fleet(tmp_path, 0) as bed:
        await contact(bed)
        async with flow_to_two(bed, family) as upgraded:
            for agent in (bed.one, bed.two):
                assert await asyncio.to_thread(agent.terminate) == 0
                assert not agent.socket.exists()
                await asyncio.to_thread(agent.start)
            await asyncio.sleep(0.5)
        assert upgraded.lost == []
        assert upgraded.refused == 0


@pytest.mark.parametrize("running", [True, False], ids=["running", "dead"])
async def test_down_removes_everything_and_nothing_else(tmp_path: Path, running: bool) -> None:
    async with fleet(tmp_path, 0) as bed:
        await contact(bed)
        one = bed.one
        if not running:
            one.kill()
        for _ in range(2):
            await asyncio.to_thread(one.ask, "down", "--config", str(one.config))
            links = one.namespace.ip("-o", "link")
            assert not [name for name in one.interfaces if name in links]
            assert not [n for n in one.interfaces if (WIREGUARD_SOCKETS / f"{n}.sock").exists()]
            assert one.carriers() == set()
            routes = one.namespace.ip("route") + one.namespace.ip("-6", "route")
            assert "proto 87" not in routes
            assert not one.socket.exists()
        assert one.port in one.namespace.ip("-o", "link")
        assert "10.77.1.0/24" in one.namespace.ip("route")
        await asyncio.to_thread(one.start)  # its keys are still there
        await contact(bed)


async def test_a_second_agent_is_refused(tmp_path: Path) -> None:
    async with fleet(tmp_path, 0) as bed:
        first = bed.one.process
        second = bed.one.spawn()
        assert await asyncio.to_thread(second.wait, 20) == 1
        assert first is not None
        text = bed.one.logs[-1].read_text().strip()
        assert text.count("\n") == 0
        assert f"in use by another wgmap-agent (pid {first.pid})" in text
        bed.one.process = first
        assert bed.one.registered()


async def test_a_change_of_address_is_registered_and_the_flow_goes_on(tmp_path: Path) -> None:
    async with fleet(tmp_path, 10) as bed:
        await contact(bed)
        one = bed.one
        peer = next(p for p in bed.server.peers.values() if p.prefixes == one.prefixes)
        assert bed.server.locators(peer) == set(one.underlay)
        async with flow_to_two(bed) as moved:
            one.namespace.ip("addr", "del", f"{one.underlay[0]}/24", "dev", one.port)
            one.namespace.ip("addr", "add", "192.0.2.99/24", "dev", one.port)
            await eventually(
                lambda: "192.0.2.99" in bed.server.locators(peer), "registered", deadline_s=10
            )
            await asyncio.sleep(1.0)
        assert bed.server.locators(peer) == {"192.0.2.99", one.underlay[1]}
        assert len(moved.lost) < 60  # 100 a second: it was away for less than that
        back = await exchange(bed.two.namespace, one.namespace, one.eids[0], 10)
        assert back.lost == []


async def test_the_commands_answer_as_the_contract_says(tmp_path: Path) -> None:
    async with fleet(tmp_path, 0) as bed:
        await contact(bed)
        one, two = bed.one, bed.two
        await eventually(lambda: states(one) == ["up"], deadline_s=10)  # a reading has shown it
        status = one.status()
        assert set(status) == {"release", "registered", "servers", "peers", "counters"}
        assert [set(server) for server in status["servers"]] == [
            {"name", "control", "rtt_ms", "last_heard_s", "preferred"}
        ]
        [peer] = status["peers"]
        assert set(peer) == {
            *("key", "eids", "endpoint", "last_handshake_s", "rx", "tx", "state"),
        }
        assert 0 <= peer["last_handshake_s"] < 60
        text = await asyncio.to_thread(one.ask, "status")
        assert "peer: " in text
        assert f"allowed ips: {two.eids[0]}/32" in text
        answer = json.loads(await asyncio.to_thread(one.ask, "resolve", two.eids[1], "--json"))
        assert answer["found"]
        assert answer["fresh"]
        assert answer["key"] == peer["key"]
        assert answer["eid"] == f"{two.eids[1]}/128"
        assert {one["address"] for one in answer["locators"]} == set(two.underlay)
        missing = await asyncio.to_thread(one.ask, "resolve", "10.66.9.9", "--json", check=False)
        assert not json.loads(missing)["found"]
        trace = await asyncio.to_thread(one.ask, "trace", two.eids[0])
        assert "STOP" not in trace
        assert "ok   tunnel: up" in trace


def test_a_wrong_configuration_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    config = tmp_path / "agent.toml"
    config.write_text("[agent]\nnam = 1\n")
    done = subprocess.run(
        [str(PROGRAM), "run", "--config", str(config)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert str(config) in done.stderr
