"""A real Prometheus with the role's files asks the machines, and every panel shows something."""

import json
import shutil
import urllib.parse
from typing import Any

import pytest

from rollout.fleet import AGENTS, SPARE, Fleet
from rollout.site import REPOSITORY

pytestmark = [pytest.mark.netns, pytest.mark.timeout(900)]
UNIT = """[Service]
ExecStart=/usr/bin/prometheus --config.file=/etc/prometheus/prometheus.yml \
--storage.tsdb.path=/run/prometheus --web.listen-address=127.0.0.1:9090
ExecReload=/bin/kill -HUP $MAINPID
[Install]
WantedBy=multi-user.target
"""
WRITTEN = "monitoring_install=false"  # the machines reach no packages
ASK = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode())"


@pytest.fixture(scope="module", autouse=True)
def prometheus(fleet: Fleet) -> None:
    """Give the machine Debian's Prometheus and our files."""
    root = fleet.site.machines[SPARE].root
    for program in ("prometheus", "promtool"):
        shutil.copy(REPOSITORY / ".venv-rollout/bin" / program, root / "usr/bin" / program)
    (root / "etc/systemd/system/prometheus.service").write_text(UNIT)
    fleet.on(SPARE, "systemctl daemon-reload")
    fleet.play("monitoring", "-e", WRITTEN, "-e", "monitoring_interval_s=1")


def ask(fleet: Fleet, path: str, **query: str) -> Any:
    """Ask the machine's Prometheus."""
    url = f"http://127.0.0.1:9090/api/v1/{path}?{urllib.parse.urlencode(query)}"
    answer = json.loads(fleet.on(SPARE, f"python3 -c '{ASK}' '{url}'"))
    assert answer["status"] == "success", answer
    return answer["data"]


def test_all_daemons_are_asked_and_answer(fleet: Fleet) -> None:
    def up() -> bool:
        targets = ask(fleet, "targets")["activeTargets"]
        names = sorted(one["labels"]["instance"] for one in targets if one["health"] == "up")
        return names == sorted([*fleet.servers, *AGENTS, "127.0.0.1:9090"])

    fleet.until(up, "every daemon answers Prometheus")


def test_no_alert_is_raised_while_all_is_well(fleet: Fleet) -> None:
    rules = ask(fleet, "rules")["groups"][0]["rules"]
    assert len(rules) > 10
    fleet.until(
        lambda: {one["health"] for one in ask(fleet, "rules")["groups"][0]["rules"]} == {"ok"},
        "all rules are evaluated",
    )
    assert [one["name"] for one in rules if one["state"] == "firing"] == []


def test_every_panel_shows_something(fleet: Fleet) -> None:
    text = fleet.on(SPARE, "cat /etc/prometheus/wgmap/wgmap.json")
    panels = [panel for panel in json.loads(text)["panels"] if panel["type"] != "row"]
    queries = [(panel["title"], one["expr"]) for panel in panels for one in panel["targets"]]
    assert len(queries) > 20
    for title, query in queries:
        if "shed" in query:  # labelled by what was dropped, and nothing was
            ask(fleet, "query", query=query)
            continue
        fleet.until(
            lambda query=query: ask(fleet, "query", query=query)["result"],  # type: ignore[misc]
            f"{title}: {query}",
        )


def test_the_same_again_changes_nothing(fleet: Fleet) -> None:
    recap = fleet.play("monitoring", "-e", WRITTEN, "-e", "monitoring_interval_s=1")
    assert set(recap.changed.values()) == {0}
    fleet.on(SPARE, "systemctl disable --now prometheus")
