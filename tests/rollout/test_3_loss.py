"""All servers are lost at once, and come back from their backups with their keys."""

import logging
from pathlib import Path

import pytest

from rollout.fleet import Fleet, eid
from wgmap.wg.keys import PrivateKey
from wgmap_chaos.demo.ping import first_reply_ms

LOG = logging.getLogger(__name__)
pytestmark = [pytest.mark.netns, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def backup(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Take a backup; returns its directory and the file of the key that opens it."""
    folder = tmp_path_factory.mktemp("backup")
    key = PrivateKey.generate()
    secret = folder / "operator.key"
    secret.touch(mode=0o600)
    secret.write_text(f"{key.encode()}\n")
    files = folder / "files"
    fleet.play("backup", "-e", f"backup_dir={files}", "-e", f"backup_seal_to={key.public}")
    return files, secret


def test_a_backup_is_one_file_of_each_server(fleet: Fleet, backup: tuple[Path, Path]) -> None:
    found = {path.name: path.stat().st_mode & 0o777 for path in backup[0].iterdir()}
    assert found == {f"{name}.wgmap": 0o600 for name in fleet.servers}


def test_a_restore_refuses_servers_that_live(fleet: Fleet, backup: tuple[Path, Path]) -> None:
    recap = fleet.try_play("restore", "-e", f"backup_dir={backup[0]}")
    assert recap.code == 2
    assert "has the state of a cluster" in recap.output
    fleet.settle()


def test_all_servers_are_lost_and_agents_come_back(fleet: Fleet, backup: tuple[Path, Path]) -> None:
    files, secret = backup
    before = fleet.peers()
    with fleet.watch() as watched:
        for name in fleet.servers:
            fleet.site.kill(name)
            fleet.site.wipe(name)
        fleet.site.boot(fleet.servers)
        fleet.play("restore", "-e", f"backup_dir={files}", "-e", f"backup_key={secret}")
        fleet.settle()
    LOG.info("%s", watched)
    assert not watched.lost, watched
    after = fleet.peers()
    kept = ("name", "control_key", "control_address", "prefixes")
    assert {n: [one[k] for k in kept] for n, one in after.items()} == {
        n: [one[k] for k in kept] for n, one in before.items()
    }
    assert set(fleet.play("deploy").changed.values()) == {0}


def test_agents_meet_again_after_the_restore(fleet: Fleet) -> None:
    fleet.on("a3", f"wgmap-agent forget {eid('a1')}", check=False)
    assert first_reply_ms(fleet.site.machines["a3"].netns, eid("a1"), 5.0) is not None
