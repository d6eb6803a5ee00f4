"""An agent in front of a network, also where the overlay covers addresses of the underlay."""

import asyncio
import subprocess
from pathlib import Path

import pytest

from support.agents import OVERLAY, PROGRAM, AgentHost, Sections
from support.fleet import Fleet, fleet
from support.flows import exchange
from support.netns import command

pytestmark = [pytest.mark.netns, pytest.mark.timeout(180)]

# The hosts' own underlay addresses lie in it, the map server's and the other agent's.
WIDE = [*OVERLAY, "192.0.0.0/16", "2001:db8::/32"]
COVERING: Sections = {
    "agent": {"overlay": WIDE},
    "underlay": {"fwmark": 0x77676D},
}
OUTSIDE = ("203.0.113.0/24", "2001:db9::/64")


def foreign_routes(agent: AgentHost) -> list[str]:
    """Return the routes of the main table that are not the agent's."""
    lines: list[str] = []
    for family in ("-4", "-6"):
        lines += agent.namespace.ip(family, "route", "show", "table", "main").splitlines()
    own = agent.interfaces
    return sorted(line for line in lines if not any(f"dev {name} " in line for name in own))


async def all_ways(bed: Fleet) -> None:
    """Send from host to host and from network to network, both families, both ways.

    Without any delay the push may lose its race, and then what went to WireGuard itself is lost:
    the tunnel stands before it is counted.
    """
    await exchange(bed.one.namespace, bed.two.namespace, bed.two.eids[0], 5)
    for one, other in ((bed.one, bed.two), (bed.two, bed.one)):
        for family in (0, 1):
            own = await exchange(one.namespace, other.namespace, other.eids[family], 20)
            assert own.lost == [], one.log()
            behind = await exchange(one.lan, other.lan, other.lan_hosts[family], 20)
            assert behind.lost == [], one.log()


@pytest.mark.parametrize("rp_filter", [0, 1], ids=["rp_filter off", "rp_filter strict"])
@pytest.mark.parametrize("delay_ms", [0, 20])
async def test_an_overlay_that_covers_the_underlay_does_not_swallow_the_tunnels(
    tmp_path: Path, rp_filter: int, delay_ms: float
) -> None:
    async with fleet(tmp_path, delay_ms, rp_filter=rp_filter, sections=COVERING) as bed:
        await all_ways(bed)
        for agent in bed.agents:
            text = agent.namespace.run("wg", "show", agent.data, "fwmark")
            assert text.strip() == "0x77676d"
            # What applications send there goes into the overlay: the mark makes the difference.
            agent.namespace.ip("route", "add", "192.0.3.0/24", "via", "192.0.2.1")
            plain, marked = (
                agent.namespace.ip("route", "get", "192.0.3.99", *mark)
                for mark in ((), ("mark", "0x77676d"))
            )
            assert f"dev {agent.tun}" in plain
            assert f"dev {agent.port}" in marked


async def test_prefixes_outside_the_overlay_are_left_alone(tmp_path: Path) -> None:
    """Split tunnelling: nothing of the main table changes, with a mark or without one."""
    plain: Sections = {}
    for number, sections in enumerate((plain, COVERING)):
        directory = tmp_path / str(number)
        directory.mkdir()
        async with fleet(directory, 0, sections=sections) as bed:
            one = bed.one
            for prefix, via in zip(OUTSIDE, one.lan_hosts, strict=True):
                one.namespace.ip("route", "add", prefix, "via", via)
            before = foreign_routes(one)
            await asyncio.to_thread(one.terminate)
            await asyncio.to_thread(one.start)
            await all_ways(bed)
            assert foreign_routes(one) == before
            for prefix, via in zip(OUTSIDE, one.lan_hosts, strict=True):
                target = prefix.replace("0/24", "9").replace("::/64", "::9")
                assert f"via {via}" in one.namespace.ip("route", "get", target)


async def test_down_takes_the_rules_away_and_so_does_a_start_without_a_mark(tmp_path: Path) -> None:
    async with fleet(tmp_path, 0, sections=COVERING) as bed:
        one = bed.one
        rules = command("ip", "-n", one.namespace.name, "rule")
        assert "fwmark 0x77676d" in rules
        await asyncio.to_thread(one.terminate)
        await asyncio.to_thread(one.ask, "down", "--config", str(one.config))
        assert "4342" not in command("ip", "-n", one.namespace.name, "rule")
        assert "4342" not in command("ip", "-n", one.namespace.name, "-6", "rule")
        await asyncio.to_thread(one.start)
        assert command("ip", "-n", one.namespace.name, "rule") == rules
        await asyncio.to_thread(one.terminate)
        one.write_config([bed.server])
        await asyncio.to_thread(one.start)
        assert "4342" not in command("ip", "-n", one.namespace.name, "rule")
        assert "10.66.0.0/16" in one.namespace.ip("route")
        assert "10.66.0.0/16" not in one.namespace.ip("route", "show", "table", "4342")


async def test_without_a_mark_such_a_configuration_is_refused(tmp_path: Path) -> None:
    async with fleet(tmp_path, 0, count=1) as bed:
        one = bed.one
        await asyncio.to_thread(one.terminate)
        one.write_config([bed.server], {"agent": {"overlay": WIDE}})
        done = await asyncio.to_thread(
            subprocess.run,
            [str(PROGRAM), "run", "--config", str(one.config)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2
        assert "set underlay.fwmark" in done.stderr
