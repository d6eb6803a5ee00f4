"""The documents' commands, one after the other, on the hosts of a lab.

``WGMAP_LONG=1`` (``make test-promises``) goes on to keys that change and a server that is replaced.
"""

import contextlib
import json
import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.documents import story
from support.documents.said import ROOT
from support.documents.shell import PROGRAMS, Shell, shell
from support.documents.story import Step
from support.lab import chaos, leftovers, wait_until

pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.timeout(600)]

LAB = ".lab"
LATER = (story.AGENT, story.SERVERS) if os.environ.get("WGMAP_LONG") else ()
HOSTS = ("ms1", "ms3", "a1", "a4")


class Story:
    """The shells, and what stands for the names in braces."""

    def __init__(self, folder: Path, shells: dict[str, Shell]) -> None:
        self._shells = shells
        self._values = _values(folder)

    def tell(self, steps: tuple[Step, ...]) -> None:
        """Run these steps."""
        for step in steps:
            command = self._filled(step.run or step.documented)
            if step.until:
                self._until(step, command)
                continue
            if step.then_ended:
                self._shells[step.host].run_and_end(command, step.then_ended)
                continue
            code, text = self._shells[step.host].run(command)
            assert code == step.code, f"{command}\nended with {code}:\n{text}"
            assert step.shows in text, f"{command}\nhas no {step.shows!r}:\n{text}"
            assert "Traceback" not in text, text

    def _until(self, step: Step, command: str) -> None:
        def printed() -> bool | None:
            return step.until in self._shells[step.host].run(command)[1] or None

        wait_until(printed, f"{command}: {step.until}", 60)

    def _filled(self, command: str) -> str:
        return re.sub(r"\{(\w+)\}", lambda name: self._values[name[1]], command)


def _values(folder: Path) -> dict[str, str]:
    """Return what the steps name: facts of the lab."""
    lab = json.loads((folder / LAB / "lab.json").read_text())
    hosts = {one["name"]: one for one in lab["servers"] + lab["agents"]}
    values = {"lab": str(folder / LAB), "shared": str(folder)}
    for name in HOSTS:
        values |= {
            f"{name}_state": hosts[name]["state_dir"],
            f"{name}_config": hosts[name]["config"],
        }
    values |= {"a1_socket": hosts["a1"]["socket"], "ms1_mesh": hosts["ms1"]["mesh_interface"]}
    return values | _of_server(hosts["ms3"])


def _of_server(server: dict[str, Any]) -> dict[str, str]:
    document = tomllib.loads(Path(server["config"]).read_text())
    [own] = [one for one in document["bootstrap"]["server"] if one["name"] == server["name"]]
    pids = [*server["pids"].values(), *server["wireguard"].values()]
    name = server["name"]
    return {
        f"{name}_pids": " ".join(str(pid) for pid in pids if pid is not None),
        f"{name}_underlay": server["underlay"],
        f"{name}_mesh": server["mesh"],
        f"{name}_control": server["control"],
        f"{name}_mesh_key": own["mesh_key"],
        f"{name}_control_key": own["control_key"],
    }


@contextlib.contextmanager
def hosts(folder: Path, here: Shell) -> Iterator[dict[str, Shell]]:
    """Open a shell on each host, with its configuration and sockets where they usually are."""
    lab = json.loads((folder / LAB / "lab.json").read_text())
    with contextlib.ExitStack() as stack:
        shells = {"here": here}
        for host in lab["servers"] + lab["agents"]:
            if host["name"] in HOSTS:
                own = folder / host["name"]
                own.mkdir()
                shells[host["name"]] = stack.enter_context(shell(own, host["netns"]))
                _settle(shells[host["name"]], host)
        yield shells


def _settle(host: Shell, facts: dict[str, Any]) -> None:
    program = "server" if "admin_socket" in facts else "agent"
    at = "/run/wgmap/admin.sock" if program == "server" else "/run/wgmap-agent/agent.sock"
    socket = facts["admin_socket"] if program == "server" else facts["socket"]
    code, text = host.run(
        f"mkdir -p /etc/wgmap /etc/bash_completion.d {Path(at).parent}"
        f" && ln -s {facts['config']} /etc/wgmap/{program}.toml && ln -s {socket} {at}"
    )
    assert code == 0, text


def _inventory() -> str:
    """Return the JSON lines of the section about many at once, with keys and secrets."""
    text = (ROOT / "docs/operations.md").read_text().partition("### Many at once")[2]
    block: str
    [block] = re.findall(r"```\n(.*?)```", text.partition("\n## ")[0], re.DOTALL)
    lines = block.replace("10.66.1.1/32", "10.66.98.1/32").replace('"a1"', '"a98"')
    return lines.replace('"KEY"', '"' + "b98" * 14 + 'A="').replace("SECRET", "something secret")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Where the lab is, with the environment as in a checkout; nothing is left of it."""
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv/bin").symlink_to(PROGRAMS)
    yield tmp_path
    chaos(tmp_path / LAB, "down")
    assert leftovers(tmp_path / LAB) == []


def test_the_documents_commands_do_what_they_say(folder: Path) -> None:
    with shell(folder) as here:
        code, text = here.run("wgmap-chaos lab up --servers 3 --agents 4 --delay 20", 120)
        assert code == 0, text
        with hosts(folder, here) as shells:
            (folder / "ms1/peers.jsonl").write_text(_inventory())
            told = Story(folder, shells)
            told.tell(story.QUICKSTART)
            told = Story(folder, shells)  # a server was started anew
            for part in (story.LOOKING, story.CHANGING, *LATER):
                told.tell(part)
        code, text = here.run("wgmap-chaos lab down", 120)
        assert code == 0, text
