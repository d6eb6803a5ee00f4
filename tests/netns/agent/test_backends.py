"""First contact with either WireGuard; agents take the kernel's where there is one."""

from pathlib import Path

import pytest

from support.fleet import fleet
from support.flows import exchange
from support.netns import PATIENCE
from wgmap.wg import probe
from wgmap.wg.device import Backend

pytestmark = [pytest.mark.netns, pytest.mark.timeout(180 * PATIENCE)]


async def test_first_contact_in_both_families(backend: Backend, tmp_path: Path) -> None:
    chosen = await probe.choose()
    if chosen.name != backend.name:
        pytest.skip(f"agents of this machine take WireGuard from: {chosen.name}")
    async with fleet(tmp_path, 0) as bed:
        link = bed.one.namespace.ip("-d", "link", "show", bed.one.data)
        assert ("wireguard" in link) is (backend.name == "kernel"), link
        for family in (0, 1):
            flow = await exchange(
                bed.one.namespace, bed.two.namespace, bed.two.eids[family], 10, 0.1
            )
            assert flow.lost == [], (bed.one.status()["counters"], bed.two.status()["counters"])
        assert bed.one.status()["counters"]["peer.stands"] >= 1
