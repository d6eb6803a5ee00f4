"""A configuration that changes under a running agent: SIGHUP, and nothing is dropped."""

import os
import signal
from pathlib import Path

import pytest

from support.agents import AgentHost
from support.eventually import eventually
from support.fleet import Fleet, fleet
from support.flows import exchange, flow

pytestmark = [pytest.mark.netns, pytest.mark.timeout(120)]


def hang_up(agent: AgentHost) -> None:
    assert agent.process is not None
    os.kill(agent.process.pid, signal.SIGHUP)


def edit(agent: AgentHost, old: str, new: str) -> None:
    text = agent.config.read_text()
    assert old in text
    agent.config.write_text(text.replace(old, new, 1))


def reloads(agent: AgentHost) -> int:
    return agent.log().count("reloading")


async def contact(bed: Fleet, family: int) -> None:
    answers = await exchange(bed.one.namespace, bed.two.namespace, bed.two.eids[family], 5)
    assert answers.lost == []


@pytest.mark.parametrize("delay_ms", [0, 20])
@pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
async def test_a_reload_drops_nothing(tmp_path: Path, delay_ms: int, family: int) -> None:
    """An established flow goes on, and what is sent to a stranger meanwhile arrives."""
    async with fleet(tmp_path, delay_ms, count=3) as bed:
        await contact(bed, family)
        assert bed.one.process is not None
        pid = bed.one.process.pid
        edit(bed.one, "[agent]", "[agent]\nidle_s = 1234.0")
        async with flow(bed.one.namespace, bed.two.namespace, bed.two.eids[family]) as going:
            hang_up(bed.one)
            stranger = bed.agents[2]
            target = stranger.eids[family]
            answers = await exchange(bed.one.namespace, stranger.namespace, target, 20)
            await eventually(lambda: reloads(bed.one) == 1, deadline_s=10)
            await eventually(lambda: bed.one.status()["registered"], deadline_s=10)
        assert going.lost == []
        assert answers.lost == []
        assert bed.one.process.pid == pid
        assert bed.one.process.poll() is None


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("[agent]", "[agent]\nwrong = 1", "agent.wrong"),
        ("[tun]\ninterface = ", '[tun]\ninterface = "x', ""),
    ],
)
async def test_what_cannot_be_taken_over_changes_nothing(
    tmp_path: Path, old: str, new: str, what: str
) -> None:
    async with fleet(tmp_path, 0) as bed:
        edit(bed.one, old, new)
        hang_up(bed.one)
        await eventually(lambda: "not reloaded" in bed.one.log(), deadline_s=10)
        assert what in bed.one.log()
        assert reloads(bed.one) == 0
        await contact(bed, 0)


async def test_other_prefixes_are_used_after_a_reload(tmp_path: Path) -> None:
    """What the overlay no longer holds is left to the host's own routes."""
    async with fleet(tmp_path, 0) as bed:
        edit(bed.one, '"fd88::/16"', '"fd88::/16", "fd99::/16"')
        routes = ("-6", "route", "show", "fd99::/16")
        assert bed.one.tun not in bed.one.namespace.ip(*routes)
        hang_up(bed.one)
        await eventually(lambda: bed.one.tun in bed.one.namespace.ip(*routes), deadline_s=10)
        edit(bed.one, ', "fd99::/16"', "")
        hang_up(bed.one)
        await eventually(lambda: bed.one.tun not in bed.one.namespace.ip(*routes), deadline_s=10)
        await contact(bed, 1)
