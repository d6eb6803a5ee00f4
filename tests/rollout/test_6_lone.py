"""One agent that is installed by hand, from a Debian package."""

import logging
import re
import shutil
from pathlib import Path

import pytest

from rollout import releases, suites
from rollout.commands import run
from rollout.fleet import LONE, PROGRAMS, Fleet, eid
from rollout.site import REPOSITORY
from wgmap_chaos.demo.ping import first_reply_ms

LOG = logging.getLogger(__name__)
pytestmark = [pytest.mark.netns, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def packages(
    wheelhouses: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> list[Path]:
    """Return the packages of a release and of the one after it; they are built here."""
    if not suites.CHOSEN.is_ours:
        pytest.skip("a package is for the distribution that it is built on")
    script, folder = REPOSITORY / "scripts/package.sh", tmp_path_factory.mktemp("packages")
    return [Path(run(script, one, folder, timeout_s=600).strip()) for one in wheelhouses]


def install(fleet: Fleet, package: Path) -> str:
    """Install a package on the machine and return what that printed."""
    shutil.copy(package, fleet.site.machines[LONE].root / "root/wgmap-agent.deb")
    return fleet.on(LONE, "dpkg -i /root/wgmap-agent.deb")


def test_a_package_makes_an_agent_with_two_commands(fleet: Fleet, packages: list[Path]) -> None:
    said = install(fleet, packages[0])
    key = re.search(
        r"wgmap peer add a9 --prefix PREFIX --control-key (\S{44})$", said, re.MULTILINE
    )
    assert key, said
    add = f"wgmap peer add {LONE} --prefix {eid(LONE)}/32 --control-key {key[1]}"
    configuration = fleet.on("ms1", add)
    (fleet.site.machines[LONE].root / "etc/wgmap/agent.toml").write_text(configuration)
    fleet.on(LONE, "systemctl start wgmap-agent")
    fleet.agents.append(LONE)
    fleet.settle()
    for source, target in ((LONE, "a1"), ("a2", LONE)):
        netns = fleet.site.machines[source].netns
        assert first_reply_ms(netns, eid(target), 5.0) is not None


@pytest.mark.usefixtures("packages")
def test_shells_complete_the_programs_of_a_package(fleet: Fleet) -> None:
    assert fleet.completed(LONE, "wgmap-agent", "ro") == ["rotate-key"]
    assert fleet.known_to_zsh(LONE) == {name: f"_{name}" for name in PROGRAMS}


def test_a_newer_package_is_noticed_by_nobody(fleet: Fleet, packages: list[Path]) -> None:
    with fleet.watch("a1", LONE) as watched:
        install(fleet, packages[1])
        fleet.settle()
    LOG.info("%s", watched)
    assert fleet.version(LONE) == releases.NEXT
    assert watched.unhurt, watched


@pytest.mark.usefixtures("packages")
def test_a_package_that_is_removed_leaves_its_keys_and_purged_nothing(fleet: Fleet) -> None:
    fleet.on(LONE, "dpkg -r wgmap-agent")
    assert "wgm" not in fleet.on(LONE, "ip -br link")
    assert fleet.on(LONE, "ls /var/lib/wgmap-agent/control.key /etc/wgmap/agent.toml")
    fleet.on(LONE, "dpkg -P wgmap-agent")
    left = "ls -d /etc/wgmap /var/lib/wgmap-agent /usr/lib/wgmap /usr/bin/wgmap*"
    left += " /usr/share/bash-completion/completions/wgmap* /usr/share/zsh/*/_wgmap*"
    assert fleet.on(LONE, left, check=False) == ""
    fleet.agents.remove(LONE)
    fleet.on("ms1", f"wgmap peer revoke {LONE}")
    fleet.settle()
