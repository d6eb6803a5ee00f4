"""The crowd of the benches against the real thing: servers, an agent, wireguard-go."""

from pathlib import Path

import pytest
from agents.caller import Caller
from crowd.members import members
from crowd.place import crowd, enrol
from crowd.registers import Kind

from support.lab import running_lab, wait_until

pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.timeout(180)]


def test_members_register_move_and_are_met(tmp_path: Path) -> None:
    whom = members(0, 6)
    with running_lab(tmp_path, "--servers", "1", "--agents", "1") as lab:
        inventory = lab.file
        with crowd(lab.directory, inventory) as them:
            enrol(inventory, whom, anywhere=True)
            assert them.join(0, len(whom), 2)["registered"] >= len(whom)
            status = lab.status()
            assert status["mappings"] == len(whom) + 2  # and the agent's own, of both families
            caller = Caller(inventory.agents[0].netns)
            met = caller.contact([one.eid for one in whom], 2)
            assert (len(met.took_ms), met.lost) == (len(whom), 0)
            assert caller.exchange([one.eid for one in whom], 0.1, 0.5)[1] > 0
            caller.close()
            counts = them.counts()
            assert counts["handshakes"] >= len(whom)  # data tunnels
            assert counts["pushes"] >= len(whom)  # each was told of the agent
            moved = them.registers("ms1", 2, 0.5, Kind.MOVED)
            assert moved["count"] > 0
            assert moved["lost"] == 0
            found = lab.resolve(whom[0].eid)
            assert any(str(place) in str(found) for place in whom[0].places)
            them.live()
            before = them.counts()["answers"]
            wait_until(lambda: them.counts()["answers"] > before, "a probe is answered", 20)
