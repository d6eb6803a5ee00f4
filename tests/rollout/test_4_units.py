"""What the units promise: ready means ready, what hangs is started again, tunnels stay."""

import json
import logging
import re

import pytest

from rollout.fleet import AGENTS, Fleet
from rollout.watching import Watched

LOG = logging.getLogger(__name__)
pytestmark = [pytest.mark.netns, pytest.mark.timeout(900)]
SERVER, AGENT = "wgmap-server.service", "wgmap-agent.service"
DAEMONS = [("ms1", SERVER), ("a1", AGENT)]
INTERFACES = {"ms1": ("wgm-mesh", "wgm-ctl"), "a1": ("wgm-ctl", "wgm-data", "wgm-data2")}
OTHERS = [("a1", "wgmap-wg@wgm-data.service"), ("ms1", "wgmap-firewall.service")]
EXPOSURE = 2.0  # of 10, as systemd-analyze judges
WATCHDOG_S = 30
TIMED_OUT = "124"  # as `timeout` says it


@pytest.mark.parametrize(("machine", "unit"), DAEMONS)
def test_the_units_are_as_promised(fleet: Fleet, machine: str, unit: str) -> None:
    def shown(what: str) -> str:
        return fleet.property(machine, unit, what)

    assert shown("Type") == "notify"
    assert shown("Restart") == "always"
    assert shown("WatchdogUSec") == f"{WATCHDOG_S}s"
    assert shown("User") == unit.removesuffix(".service")
    assert sorted(shown("CapabilityBoundingSet").split()) == ["cap_net_admin", "cap_net_raw"]
    for interface in INTERFACES[machine]:
        assert fleet.property(machine, f"wgmap-wg@{interface}.service", "ActiveState") == "active"


@pytest.mark.parametrize(("machine", "unit"), [*DAEMONS, *OTHERS])
def test_a_unit_may_do_little(fleet: Fleet, machine: str, unit: str) -> None:
    said = fleet.on(machine, f"systemd-analyze security --no-pager {unit}", check=False)
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", said)
    assert found, said
    assert float(found[1]) <= EXPOSURE, said


def test_an_agent_reaches_nothing_of_a_server_but_its_answers(fleet: Fleet) -> None:
    listed = json.loads(fleet.on("ms1", "wgmap --json server list"))["servers"]
    [inside] = [one["control_address"] for one in listed if one["name"] == "ms1"]
    reach = f"timeout 3 bash -c '</dev/tcp/{inside}/22'; echo $?"  # sshd listens everywhere
    assert fleet.on("a1", reach) == TIMED_OUT
    fleet.on("ms1", "systemctl stop wgmap-firewall")
    try:
        assert fleet.on("a1", reach) == "0", "without the rules it would"
    finally:
        fleet.on("ms1", "systemctl start wgmap-firewall")
    assert fleet.on("a1", reach) == TIMED_OUT
    assert fleet.agent("a1")["registered"]


def test_a_server_is_ready_when_it_answers_with_authority(fleet: Fleet) -> None:
    others = fleet.servers[1:]
    for name in others:
        fleet.on(name, f"systemctl stop {SERVER}")
    fleet.on("ms1", f"systemctl restart --no-block {SERVER}")
    is_starting(fleet, "ms1", SERVER)
    alone = fleet.until(lambda: fleet.status("ms1"), "a server without a quorum says how it is")
    assert alone["leader"] is None
    assert fleet.property("ms1", SERVER, "ActiveState") == "activating"
    fleet.on(others[0], f"systemctl start --no-block {SERVER}")
    is_active(fleet, "ms1", SERVER)
    own = next(one for one in fleet.status("ms1")["servers"] if one["name"] == "ms1")
    assert own["fresh"]
    fleet.on(others[1], f"systemctl start {SERVER}")
    fleet.settle()


def test_an_agent_is_ready_when_it_is_registered(fleet: Fleet) -> None:
    for name in fleet.servers:
        fleet.on(name, f"systemctl stop {SERVER}")
    fleet.on("a1", f"systemctl restart --no-block {AGENT}")
    is_starting(fleet, "a1", AGENT)
    alone = fleet.until(lambda: fleet.agent("a1"), "an agent without servers says how it is")
    assert not alone["registered"]
    assert fleet.property("a1", AGENT, "ActiveState") == "activating"
    for name in fleet.servers:
        fleet.on(name, f"systemctl start --no-block {SERVER}")
    is_active(fleet, "a1", AGENT)
    assert fleet.agent("a1")["registered"]
    fleet.settle()


def test_daemons_that_hang_are_started_again(fleet: Fleet) -> None:
    before = {unit: fleet.property(machine, unit, "MainPID") for machine, unit in DAEMONS}
    with fleet.watch() as watched:
        for machine, unit in DAEMONS:
            fleet.on(machine, f"kill -STOP {before[unit]}")
        for machine, unit in DAEMONS:
            fleet.until(
                lambda machine=machine, unit=unit: (  # type: ignore[misc]
                    fleet.property(machine, unit, "MainPID") not in (before[unit], "0")
                ),
                f"{unit} is started again",
                3.0 * WATCHDOG_S,
            )
            is_active(fleet, machine, unit)
    fleet.settle()
    noticed_nothing(watched)


def test_replica_and_responder_are_restarted_one_by_one(fleet: Fleet) -> None:
    main = fleet.property("ms1", SERVER, "MainPID")
    with fleet.watch() as watched:
        for child in ("replica", "responder"):
            before = pids(fleet, "ms1")
            fleet.on("ms1", f"kill -KILL {before[child]}")
            fleet.until(
                lambda before=before, child=child: pids(fleet, "ms1")[child] != before[child],  # type: ignore[misc]
                f"{child} runs again",
            )
            fleet.settle()
            kept = "responder" if child == "replica" else "replica"
            assert pids(fleet, "ms1")[kept] == before[kept]
    assert fleet.property("ms1", SERVER, "MainPID") == main
    assert fleet.property("ms1", SERVER, "ActiveState") == "active"
    noticed_nothing(watched)


def test_a_reload_drops_nothing(fleet: Fleet) -> None:
    before = {unit: fleet.property(machine, unit, "MainPID") for machine, unit in DAEMONS}
    children = pids(fleet, "ms1")
    with fleet.watch() as watched:
        for machine, unit in DAEMONS:
            fleet.on(machine, f"systemctl reload {unit}")
        assert not set(pids(fleet, "ms1").values()) & {children["replica"], children["responder"]}
    fleet.settle()
    assert before == {unit: fleet.property(machine, unit, "MainPID") for machine, unit in DAEMONS}
    noticed_nothing(watched)


def test_a_changed_unit_comes_into_use_by_a_restart_that_nobody_notices(fleet: Fleet) -> None:
    leader = fleet.status()["leader"]
    changed = next(name for name in fleet.servers if name != leader)
    before = {name: fleet.property(name, SERVER, "InvocationID") for name in fleet.servers}
    for name in (leader, changed):
        fleet.on(name, f"echo '# by hand' >> /etc/systemd/system/{SERVER}")
    with fleet.watch() as watched:
        recap = fleet.play("deploy", "--tags", "servers")
    assert set(recap.changed_in("Restart it")) == {leader, changed}
    assert len(recap.changed_in("Let another server lead")) in (1, 2)  # it may be handed on to both
    after = {name: fleet.property(name, SERVER, "InvocationID") for name in fleet.servers}
    assert {name for name in fleet.servers if before[name] != after[name]} == {leader, changed}
    fleet.settle()
    noticed_nothing(watched)


def test_stopping_an_agent_leaves_its_tunnels(fleet: Fleet) -> None:
    with fleet.watch() as watched:
        fleet.on("a1", f"systemctl stop {AGENT}")
        assert fleet.property("a1", AGENT, "ActiveState") == "inactive"
        fleet.on("a1", "sleep 3")  # how long it is away
        fleet.on("a1", f"systemctl start {AGENT}")
    fleet.settle()
    noticed_nothing(watched)


def test_stopping_the_servers_leaves_all_tunnels(fleet: Fleet) -> None:
    with fleet.watch() as watched:
        for name in fleet.servers:
            fleet.on(name, f"systemctl stop {SERVER}")
        fleet.on("a1", "sleep 3")  # how long they are away
        for name in fleet.servers:
            fleet.on(name, f"systemctl start --no-block {SERVER}")
        fleet.settle()
    assert not watched.lost, watched


def test_both_keys_of_a_rotation_are_in_units_of_their_own(fleet: Fleet) -> None:
    with fleet.watch() as watched:
        fleet.play("rotate_keys")
        for name in AGENTS:
            fleet.until(
                lambda name=name: fleet.agent(name)["counters"].get("rotation.finished"),  # type: ignore[misc]
                f"the key of {name} has rotated",
            )
        carrier = fleet.property("a1", "wgmap-wg@wgm-data2.service", "MainPID")
        assert fleet.on("a1", "ss -xlp | grep wgm-data2.sock").count(f"pid={carrier},")
        fleet.on("a1", f"systemctl stop {AGENT}")
        fleet.on("a1", "sleep 3")
        fleet.on("a1", f"systemctl start {AGENT}")
    fleet.settle()
    LOG.info("%s", watched)
    assert not watched.failed
    assert watched.longest_gap_s < 0.5, watched


def pids(fleet: Fleet, name: str) -> dict[str, int]:
    """Return the processes of a map server, by what they are."""
    found: dict[str, int] = json.loads(fleet.on(name, "cat /var/lib/wgmap/pids.json"))
    return found


def is_starting(fleet: Fleet, machine: str, unit: str) -> None:
    """Wait until a unit is on its way."""
    fleet.until(
        lambda: fleet.property(machine, unit, "ActiveState") == "activating", f"{unit} is starting"
    )


def is_active(fleet: Fleet, machine: str, unit: str) -> None:
    """Wait until a unit is ready."""
    fleet.until(lambda: fleet.property(machine, unit, "ActiveState") == "active", f"{unit} ready")


def noticed_nothing(watched: Watched) -> None:
    """A flow and lookups went on as if nothing had happened."""
    LOG.info("%s", watched)
    assert watched.unhurt, watched
