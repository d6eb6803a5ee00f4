"""Another release, other servers: while packets flow and lookups go on."""

import logging
from pathlib import Path

import pytest

from rollout import releases
from rollout.fleet import AGENTS, SPARE, Fleet
from wgmap import __version__

LOG = logging.getLogger(__name__)
pytestmark = [pytest.mark.netns, pytest.mark.timeout(3600)]


def test_an_upgrade_is_noticed_by_nobody(fleet: Fleet, wheelhouses: tuple[Path, Path]) -> None:
    before = {name: fleet.property(name, "wgmap-server", "MainPID") for name in fleet.servers}
    leader = fleet.status()["leader"]
    fleet.wheelhouse = wheelhouses[1]
    with fleet.watch() as watched:
        recap = fleet.play("upgrade")
    LOG.info("%s", watched)
    assert {fleet.version(name) for name in (*fleet.servers, *AGENTS)} == {releases.NEXT}
    for name in fleet.servers:
        assert fleet.property(name, "wgmap-server", "MainPID") != before[name]
    restarted = [
        line
        for line in recap.output.partition("Upgrade the map servers")[2].splitlines()
        if line.startswith("changed: [ms")
    ]
    assert leader in restarted[-1], "the leader is the last one"
    fleet.settle()
    assert watched.unhurt, watched
    assert not watched.not_fresh, watched


def test_the_same_upgrade_again_changes_nothing(fleet: Fleet) -> None:
    assert set(fleet.play("upgrade").changed.values()) == {0}


def test_a_rollback_is_noticed_by_nobody(fleet: Fleet, wheelhouses: tuple[Path, Path]) -> None:
    with fleet.watch() as watched:
        fleet.play("rollback")
    LOG.info("%s", watched)
    assert {fleet.version(name) for name in (*fleet.servers, *AGENTS)} == {__version__}
    fleet.settle()
    fleet.wheelhouse = wheelhouses[0]
    assert watched.unhurt, watched


def test_a_rollback_wants_to_know_where_to_after_half_an_upgrade(
    fleet: Fleet, wheelhouses: tuple[Path, Path]
) -> None:
    fleet.wheelhouse = wheelhouses[1]
    fleet.play("upgrade", "--limit", "ms1")
    assert fleet.version("ms1") == releases.NEXT
    recap = fleet.try_play("rollback", "--tags", "servers")
    assert recap.code == 2
    assert "release: say -e release=VERSION" in recap.output
    assert fleet.version("ms1") == releases.NEXT, "nothing was touched"
    back = ("--tags", "servers", "-e", f"release={__version__}")
    assert fleet.play("rollback", *back).changed["ms1"] > 0
    assert set(fleet.play("rollback", *back).changed.values()) == {0}
    assert {fleet.version(name) for name in fleet.servers} == {__version__}
    fleet.wheelhouse = wheelhouses[0]
    fleet.settle()


def test_an_unhealthy_cluster_is_not_touched(fleet: Fleet, wheelhouses: tuple[Path, Path]) -> None:
    fleet.on("ms2", "systemctl stop wgmap-server")
    fleet.wheelhouse = wheelhouses[1]
    before = {name: fleet.property(name, "wgmap-server", "MainPID") for name in ("ms1", "ms3")}
    recap = fleet.try_play("upgrade", "--tags", "servers")
    assert recap.code != 0
    assert "ms2 is unreachable" in recap.output
    assert before == {
        name: fleet.property(name, "wgmap-server", "MainPID") for name in ("ms1", "ms3")
    }
    fleet.wheelhouse = wheelhouses[0]
    fleet.on("ms2", "systemctl start wgmap-server")
    fleet.settle()


def test_an_agent_that_is_off_stops_nobody_else(fleet: Fleet) -> None:
    fleet.site.kill("a3")
    recap = fleet.try_play("deploy")
    assert recap.code == 4, "it says that a host was not reached"
    assert recap.failed == {name: int(name == "a3") for name in (*fleet.servers, *AGENTS)}
    assert recap.changed["a1"] == recap.changed["ms1"] == 0
    fleet.site.boot(["a3"])
    fleet.settle()


def test_a_map_server_that_is_off_stops_no_agent(fleet: Fleet) -> None:
    fleet.site.kill("ms1")
    recap = fleet.try_play("deploy", "--tags", "agents")
    assert recap.code == 0, recap.output[-6000:]
    assert "Start it; ready means registered" in recap.output, "the play came to its end"
    fleet.site.boot(["ms1"])
    fleet.settle()


def test_a_machine_that_boots_comes_back_by_itself(fleet: Fleet) -> None:
    with fleet.watch() as watched:
        fleet.site.kill("ms2")
        fleet.site.boot(["ms2"])
        fleet.settle()
    LOG.info("%s", watched)
    assert watched.unhurt, watched


def test_a_server_more_after_a_run_that_was_broken_off(fleet: Fleet) -> None:
    """Half a release is there, as after a lost connection: it is made whole."""
    half = f"/opt/wgmap/releases/{__version__}"
    fleet.on(SPARE, f"mkdir -p {half}/bin && touch {half}/bin/pip")
    fleet.servers.append(SPARE)
    with fleet.watch() as watched:
        fleet.play("add_server", "-e", f"server={SPARE}")
        fleet.settle()
    LOG.info("%s", watched)
    assert watched.unhurt, watched


def test_a_server_less(fleet: Fleet) -> None:
    with fleet.watch() as watched:
        fleet.play("remove_server", "-e", f"server={SPARE}")
        fleet.servers.remove(SPARE)
        fleet.settle()
    assert watched.unhurt, watched
    assert fleet.on(SPARE, "ls /var/lib/wgmap", check=False) == ""


def test_a_server_that_was_destroyed_is_replaced(fleet: Fleet) -> None:
    fleet.site.kill("ms2")
    fleet.site.wipe("ms2")
    with fleet.watch() as watched:
        fleet.site.boot(["ms2"])
        fleet.play("replace_server", "-e", "server=ms2")
        fleet.settle()
    LOG.info("%s", watched)
    assert watched.unhurt, watched
    fleet.play("deploy")  # which brings the new set into everybody's configuration
