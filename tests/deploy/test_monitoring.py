"""Alerts and dashboard as Ansible writes them: good for Prometheus, and of metrics that exist."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.control_host import REPOSITORY, ControlHost, needs_ansible
from support.metric_names import agent_names, server_names

ROLE = REPOSITORY / "deploy/ansible/roles/monitoring"
HERE = Path(__file__).parent
PARTS = re.compile(r"_(bucket|sum|count)$")

pytestmark = [pytest.mark.timeout(120), needs_ansible]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> ControlHost:
    """Return a directory with the files that the role's templates make."""
    control = ControlHost(tmp_path_factory.mktemp("monitoring"))
    control.make()
    for name in ("alerts.yml", "dashboard.json", "prometheus.yml"):
        source, target = ROLE / f"templates/{name}.j2", control.directory / name
        variables = [
            part for kind in ("defaults", "vars") for part in ("-e", f"@{ROLE}/{kind}/main.yml")
        ]
        done = control.run(
            *("ansible", "localhost", "-c", "local", "-m", "ansible.builtin.template"),
            *("-a", f"src={source} dest={target}", *variables),
            *("-e", f"monitoring_directory={control.directory}"),
        )
        assert done.code == 0, done.output
    (control.directory / "wgmap").mkdir()
    (control.directory / "alerts.yml").rename(control.directory / "wgmap/alerts.yml")
    return control


def test_prometheus_takes_configuration_and_rules(written: ControlHost) -> None:
    done = written.run("promtool", "check", "config", str(written.directory / "prometheus.yml"))
    assert done.code == 0, done.output
    assert re.search(r"\b\d+ rules found", done.output), done.output


def test_alerts_fire_when_they_should_and_not_otherwise(written: ControlHost) -> None:
    tests = written.directory / "wgmap/alerts_test.yml"
    tests.write_text((HERE / "alerts_test.yml").read_text())
    done = written.run("promtool", "test", "rules", str(tests))
    assert done.code == 0, done.output


def test_every_alert_has_a_test_and_a_page(written: ControlHost) -> None:
    alerts = set(re.findall(r"- alert: (\w+)", _alerts(written)))
    assert len(alerts) > 10
    tested = set(
        re.findall(r"alertname: (\w+)\n\s+exp_alerts:\n", (HERE / "alerts_test.yml").read_text())
    )
    quiet = set(
        re.findall(r"alertname: (\w+)\n\s+exp_alerts: \[\]", (HERE / "alerts_test.yml").read_text())
    )
    assert tested == alerts, "a test in which each fires"
    assert quiet == alerts, "a test in which each does not"
    pages = set(
        re.findall(r"^## (\w+)$", (REPOSITORY / "docs/alerts.md").read_text(), re.MULTILINE)
    )
    assert pages == alerts
    for name, page in _pages().items():
        parts = re.findall(r"^\*\*(\w+)\.\*\* \S", page, re.MULTILINE)
        assert parts == ["Meaning", "Check", "Cure"], name
    anchors = set(re.findall(r"docs/alerts\.md#(\w+)", _alerts(written)))
    assert anchors == {name.lower() for name in alerts}


def _pages() -> dict[str, str]:
    """Return the page of each alert."""
    _, *pages = (REPOSITORY / "docs/alerts.md").read_text().split("\n## ")
    return {name: page for name, _, page in (one.partition("\n") for one in pages)}


def test_only_metrics_that_exist_are_used(written: ControlHost) -> None:
    known = agent_names() | server_names()
    panels = json.loads((written.directory / "dashboard.json").read_text())["panels"]
    used = set(_metrics(_alerts(written))) | set(_metrics(json.dumps(panels)))
    assert len(used) > 30
    assert {PARTS.sub("", name) for name in used} - known == set()


def test_the_dashboard_is_whole(written: ControlHost) -> None:
    dashboard: dict[str, Any] = json.loads((written.directory / "dashboard.json").read_text())
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    shown = [panel for panel in panels if panel["type"] != "row"]
    assert len(shown) > 20
    assert all(panel["targets"] for panel in shown)
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}
    assert len(places) == len(panels), "no two at one place"
    legends = {target["legendFormat"] for panel in shown for target in panel["targets"]}
    assert "{{instance}}" in legends


def _alerts(written: ControlHost) -> str:
    return (written.directory / "wgmap/alerts.yml").read_text()


def _metrics(text: str) -> Iterator[str]:
    yield from re.findall(r"\bwgmap_(?:agent|server)_\w+", text)
