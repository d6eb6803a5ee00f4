"""The page before a lab: a server dies, an agent is revoked, two meet for the first time."""

import os
import signal
from collections.abc import Iterator

import pytest

from support.browser import Browser, browser, needs_browser
from support.lab import Lab, chaos, running_lab
from support.pageproxy import proxied

pytestmark = [pytest.mark.netns, needs_browser, pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture
def own_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with running_lab(tmp_path_factory.mktemp("lab")) as lab:
        yield lab


def test_a_server_dies_and_an_agent_is_revoked(own_lab: Lab) -> None:
    first, *_, last = own_lab.file.servers
    with browser() as window, proxied(first.admin_socket) as proxy:
        window.open(proxy.address)
        window.says("#health", "well")
        assert len(window.all(".server")) == 3
        for pid in last.pids.values():
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
        window.one(f".server.unreachable[data-server={last.name}]")
        window.says("#health", "degraded")
        _revoke(window, "a4")
        window.says("dialog .said", f"not yet confirmed by {last.name}")
        window.one("dialog .actions button:last-child").click()
        source, target = own_lab.file.agents[0], own_lab.file.agents[3]
        assert own_lab.ping(source, target) is None
        window.driver.execute_script("location.hash = 'contacts'")
        window.says("#silent", f"Not known: what {last.name} alone told")
        assert not window.all('.map [data-pair="a1 a2"]')
        window.driver.execute_script("location.hash = 'cluster'")
        contacts = '[data-chart="introduction_p99_s"]'
        window.says(f"{contacts} footer", "nothing yet")
        window.driver.execute_script("location.hash = 'contacts'")
        assert own_lab.ping(source, own_lab.file.agents[1]) is not None
        window.one('.map [data-pair="a1 a2"].new.heard')
        window.driver.execute_script("location.hash = 'cluster'")
        window.one(f'{contacts} .dots[d^="M"], {contacts} .line[d*="L"]')
        window.says(f"{contacts} footer", "top")
        chaos(own_lab.directory, "start-servers", last.name)
        window.driver.execute_script("location.hash = 'cluster'")
        window.says("#health", "well")


def _revoke(window: Browser, name: str) -> None:
    window.driver.execute_script("location.hash = 'peers'")
    window.one(f'tr[data-key="{name}"]').click()
    window.one("#revoke").click()
    window.keys(f"{name}\ue007")
