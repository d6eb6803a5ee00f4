"""Another release, other servers: while packets flow and lookups go on."""

import logging
import shlex
from pathlib import Path

import pytest

from rollout import releases
from rollout.fleet import AGENTS, SPARE, Fleet
from wgmap import __version__

LOG = logging.getLogger(__name__)
pytestmark = [pytest.mark.netns, pytest.mark.timeout(3600)]
INSTALLS = "wgmap-install.service"
BROKEN = Path("/etc/systemd/system/wgmap-server.service.d/99-broken.conf")
# Names what pip noted as a release's and is not there, or not as long as noted.
DAMAGED = """
import importlib.metadata, pathlib, sys
for lib in pathlib.Path("/opt/wgmap/releases", sys.argv[1], "lib").glob("python3*/site-packages"):
    for one in importlib.metadata.distributions(path=[str(lib)]):
        for file in one.files:
            path = file.locate()
            if not path.exists() or file.size not in (None, path.stat().st_size):
                print(file)
"""


def test_a_play_that_is_killed_in_the_middle_of_pip_is_repeated_at_once(
    fleet: Fleet, wheelhouses: tuple[Path, Path]
) -> None:
    """What it began on the hosts goes on without it, and must not get into the next one's way."""
    fleet.wheelhouse = wheelhouses[1]
    before = fleet.running()
    first = fleet.begin("deploy", "--tags", "servers")
    fleet.until(lambda: all(installs(fleet, name) for name in fleet.servers), "pip runs")
    fleet.on("ms1", f"systemctl kill -s STOP {INSTALLS}")  # it takes for ever there
    first.kill()
    assert installs(fleet, "ms1"), "it goes on without the play"
    fleet.play("deploy", "--tags", "servers")
    for name in fleet.servers:
        assert not installs(fleet, name)
        assert fleet.on(name, f"python3 -c {shlex.quote(DAMAGED)} {releases.NEXT}") == ""
        assert fleet.on(name, f"cat /opt/wgmap/releases/{releases.NEXT}/complete") == releases.NEXT
        assert fleet.version(name) == __version__, "it lies beside the one in use"
    assert fleet.running() == before


def test_an_upgrade_stops_at_the_first_doubt(fleet: Fleet) -> None:
    """The first follower does not come up again: the other ones stay as they are."""
    leader = fleet.status()["leader"]
    bad, other = (name for name in fleet.servers if name != leader)
    fleet.on(
        bad, f"mkdir -p {BROKEN.parent} && printf '[Service]\nExecStartPre=false\n' > {BROKEN}"
    )
    before = fleet.running()
    with fleet.watch() as watched:
        try:
            recap = fleet.try_play("upgrade", "--tags", "servers", "-e", "map_server_patience_s=10")
            after = fleet.running(leader)
        finally:
            fleet.on(bad, f"rm {BROKEN} && systemctl daemon-reload && systemctl reset-failed")
            fleet.on(bad, "systemctl restart wgmap-server")
        fleet.settle()
    assert recap.code == 2
    assert f"{bad} says that" in recap.output
    assert "the same command goes on from here" in recap.output
    assert after == before | {bad: None}
    LOG.info("%s", watched)
    assert watched.unhurt, watched
    # As if the play had been broken off between the change of what is in use and the restart.
    for link, release in (("previous", __version__), ("current", releases.NEXT)):
        fleet.on(other, f"ln -sfn /opt/wgmap/releases/{release} /opt/wgmap/{link}")


def test_the_upgrade_goes_on_and_is_noticed_by_nobody(fleet: Fleet) -> None:
    with fleet.watch() as watched:
        recap = fleet.play("upgrade")
    LOG.info("%s", watched)
    assert {fleet.version(name) for name in (*fleet.servers, *AGENTS)} == {releases.NEXT}
    assert set(fleet.running().values()) == {releases.NEXT}
    restarted = recap.changed_in("Restart into it")
    assert len(restarted) == len(fleet.servers) - 1, "the first one runs it already"
    assert recap.changed_in("Let another server lead") == restarted[-1:], "the leader is the last"
    fleet.settle()
    assert watched.unhurt, watched


def test_the_same_upgrade_again_changes_nothing(fleet: Fleet) -> None:
    assert set(fleet.play("upgrade").changed.values()) == {0}


def test_a_rollback_is_noticed_by_nobody(fleet: Fleet, wheelhouses: tuple[Path, Path]) -> None:
    with fleet.watch() as watched:
        fleet.play("rollback")
    LOG.info("%s", watched)
    assert {fleet.version(name) for name in (*fleet.servers, *AGENTS)} == {__version__}
    assert set(fleet.running().values()) == {__version__}
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


def test_an_agent_that_is_off_stops_nobody_else(
    fleet: Fleet, wheelhouses: tuple[Path, Path]
) -> None:
    fleet.site.kill("a3")
    recap = fleet.try_play("deploy")
    assert recap.code == 4, "it says that a host was not reached"
    assert (set(recap.failed.values()), recap.unreachable) == ({0}, {"a3"})
    assert recap.changed["a1"] == recap.changed["ms1"] == 0
    fleet.wheelhouse = wheelhouses[1]
    recap = fleet.try_play("upgrade", "--tags", "agents")
    assert recap.code == 4
    assert (set(recap.failed.values()), recap.unreachable) == ({0}, {"a3"})
    assert {fleet.agent(name)["release"] for name in ("a1", "a2")} == {releases.NEXT}
    fleet.site.boot(["a3"])
    fleet.settle()
    fleet.play("rollback", "--tags", "agents", "-e", f"release={__version__}")
    assert {fleet.agent(name)["release"] for name in AGENTS} == {__version__}
    fleet.wheelhouse = wheelhouses[0]
    fleet.settle()


def test_a_map_server_that_is_off_stops_nobody_else(fleet: Fleet) -> None:
    fleet.site.kill("ms1")
    recap = fleet.try_play("deploy")
    assert recap.code == 4, "it says that a host was not reached"
    assert set(recap.failed.values()) == {0}
    assert "ms1" in recap.unreachable
    assert recap.changed["ms2"] == recap.changed["a1"] == 0
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


def installs(fleet: Fleet, name: str) -> bool:
    """Whether a release is being installed on a machine."""
    return fleet.property(name, INSTALLS, "ActiveState") == "active"
