"""An agent is stolen; then everything is removed."""

import pytest

from rollout.fleet import AGENTS, Fleet, eid
from wgmap_chaos.demo.ping import first_reply_ms

pytestmark = [pytest.mark.netns, pytest.mark.timeout(3600)]


def test_a_stolen_agent_is_revoked_though_a_server_is_off(fleet: Fleet) -> None:
    netns = fleet.site.machines["a3"].netns
    assert first_reply_ms(netns, eid("a1"), 5.0) is not None
    fleet.site.kill("ms1")
    recap = fleet.play("revoke", "-e", "peer=a3")
    assert "a3" in recap.output
    fleet.until(lambda: first_reply_ms(netns, eid("a1"), 1.0) is None, "a3 is cut off")
    assert first_reply_ms(fleet.site.machines["a2"].netns, eid("a1"), 5.0) is not None
    fleet.site.boot(["ms1"])
    fleet.until(lambda: fleet.peers()["a3"]["revoked"], "ms1 knows of it")


def test_an_agent_that_was_revoked_is_not_enrolled_again(fleet: Fleet) -> None:
    recap = fleet.try_play("deploy")
    assert recap.code == 2
    assert "a3: was revoked" in recap.output


def test_nothing_is_removed_unless_it_is_meant(fleet: Fleet) -> None:
    recap = fleet.try_play("uninstall")
    assert recap.code == 2
    assert "confirm:" in recap.output
    assert fleet.on("a1", "systemctl is-active wgmap-agent") == "active"


def test_nothing_is_left(fleet: Fleet) -> None:
    fleet.play("uninstall", "-e", "confirm=yes")
    for name in (*fleet.servers, *AGENTS):
        left = fleet.on(
            name,
            "ls -d /opt/wgmap /etc/wgmap /var/lib/wgmap* /etc/systemd/system/wgmap*"
            " /usr/local/bin/wgmap* /usr/local/share/*/*/*wgmap*;"
            " ip -br link | grep wgm; ip route | grep wgm;"
            " getent passwd | grep wgmap; nft list tables | grep wgmap;"
            " ls /etc/systemd/system/*.wants | grep wgmap",
            check=False,
        )
        assert left == "", f"{name}: {left}"
