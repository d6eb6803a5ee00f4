"""Two agents, a map server that behaves, real tunnels: first contact."""

import asyncio
from pathlib import Path

import pytest

from support.agents import ping
from support.pair import pair

pytestmark = [pytest.mark.netns, pytest.mark.timeout(180)]


@pytest.mark.parametrize(("delay_ms", "rp_filter"), [(0, 1), (20, 0)])
async def test_nothing_of_a_first_contact_is_lost(
    tmp_path: Path, delay_ms: float, rp_filter: int
) -> None:
    async with pair(tmp_path, delay_ms, rp_filter) as bed:
        one, two = bed.one, bed.two
        first = await asyncio.to_thread(ping, one.namespace, None, two.eids[0], 30)
        assert (first.sent, first.received) == (30, 30), one.log() + two.log()
        assert first.first_ms is not None
        assert first.first_ms < 150 + 10 * delay_ms
        for source, target in zip(one.eids, two.eids, strict=True):
            again = await asyncio.to_thread(ping, two.namespace, target, source, 10)
            assert again.received == 10
        for source, target in zip(one.lan_hosts, two.lan_hosts, strict=True):
            routed = await asyncio.to_thread(ping, one.lan, source, target, 10)
            assert routed.received == 10
