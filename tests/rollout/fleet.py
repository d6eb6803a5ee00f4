"""The machines of a rollout as an operator has them: an inventory, playbooks, what daemons say."""

import contextlib
import json
import shlex
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from rollout.commands import SiteError
from rollout.plays import Play, Recap
from rollout.site import Site
from rollout.watching import Watching, watching
from wgmap.errors import WgmapError
from wgmap_agent.runner.statussocket import request

SERVERS = ("ms1", "ms2", "ms3")
SPARE = "ms4"
LONE = "a9"  # an agent that Ansible knows nothing of
AGENTS = ("a1", "a2", "a3")
FIRST_SERVER, FIRST_AGENT, LONE_NUMBER = 11, 21, 29  # last bytes of addresses
PROGRAMS = ("wgmap", "wgmap-agent", "wgmap-server")
OVERLAY = ["10.66.0.0/16", "fd66::/32"]
SETTLED_S = 120.0
POLL_S = 0.25
T = TypeVar("T")


class Fleet:
    """Three map servers and a spare one, three agents."""

    def __init__(self, site: Site, wheelhouse: Path) -> None:
        """Boot the machines of ``site``, which is open."""
        self.site = site
        self.wheelhouse = wheelhouse
        self.servers = list(SERVERS)
        self.agents = list(AGENTS)  # those that are enrolled
        self.recaps: list[Recap] = []
        for number, name in enumerate((*SERVERS, SPARE), FIRST_SERVER):
            site.add(name, number)
        for number, name in enumerate(AGENTS, FIRST_AGENT):
            site.add(name, number)
        site.add(LONE, LONE_NUMBER)
        site.boot()

    # -- what an operator does ---------------------------------------------------------------

    def inventory(self) -> dict[str, Any]:
        """Return the inventory as it is now."""
        return {
            "all": {
                "vars": {
                    "ansible_user": "root",
                    "ansible_python_interpreter": "/usr/bin/python3",
                    "common_wheelhouse": str(self.wheelhouse),
                    "common_overlay": OVERLAY,
                    "agent_jitter_s": 2,
                },
                "children": {
                    "map_servers": {
                        "hosts": {name: self._host(name) for name in self.servers},
                        "vars": {"map_server_metrics": "{{ ansible_host }}:9342"},
                    },
                    "monitoring": {"hosts": {SPARE: self._host(SPARE)}},
                    "agents": {
                        "hosts": {
                            name: self._host(name) | {"agent_prefixes": [f"{eid(name)}/32"]}
                            for name in AGENTS
                        },
                        "vars": {"agent_metrics": "{{ ansible_host }}:9343"},
                    },
                },
            }
        }

    def play(self, name: str, *arguments: str) -> Recap:
        """Run a playbook that must succeed on every host; AssertionError with its output."""
        recap = self.try_play(name, *arguments)
        assert recap.code == 0, f"{name}: exit code {recap.code}\n{recap.output[-6000:]}"
        return recap

    def try_play(self, name: str, *arguments: str) -> Recap:
        """Run a playbook, whatever comes of it."""
        recap = self.begin(name, *arguments).wait()
        self.recaps.append(recap)
        return recap

    def begin(self, name: str, *arguments: str) -> Play:
        """Begin a playbook."""
        self.site.write_inventory(self.inventory())
        return self.site.play(name, *arguments)

    # -- what the machines say ---------------------------------------------------------------

    def on(self, name: str, command: str, *, check: bool = True) -> str:
        """Run a shell command on a machine and return what it printed, stripped."""
        return self.site.on(name, command, check=check).strip()

    def status(self, server: str | None = None) -> dict[str, Any]:
        """Return ``wgmap status`` of a server."""
        answer: dict[str, Any] = json.loads(
            self.on(server or self.servers[0], "wgmap --json status")
        )
        return answer

    def running(self, server: str | None = None) -> dict[str, str | None]:
        """Return the releases that the map servers run, by their names, as one of them says."""
        return {one["name"]: one["release"] for one in self.status(server)["servers"]}

    def peers(self) -> dict[str, dict[str, Any]]:
        """Return the enrolled peers by name."""
        listed = json.loads(self.on(self.servers[0], "wgmap --json peer list"))
        return {peer["name"]: peer for peer in listed}

    def agent(self, name: str) -> dict[str, Any]:
        """Return ``wgmap-agent status`` of an agent."""
        return request(self.socket(name), {"op": "status"})

    def socket(self, name: str) -> Path:
        """Return the path of an agent's socket, as seen from here."""
        return Path(f"/proc/{self.site.init_pid(name)}/root/run/wgmap-agent/agent.sock")

    def property(self, name: str, unit: str, what: str) -> str:
        """Return a property of a unit."""
        return self.on(name, f"systemctl show -P {what} {unit}")

    def version(self, name: str) -> str:
        """Return the release that a machine's programs are of."""
        return self.on(name, "wgmap-agent --version").split()[-1]

    def watch(self, source: str = "a1", target: str = "a2", asker: str = "a3") -> Watching:
        """Watch a flow between two agents, and lookups by a third; a context manager."""
        near, far = (self.site.machines[name].netns for name in (source, target))
        return watching(near, far, eid(target), self.socket(asker))

    def completed(self, name: str, *words: str) -> list[str]:
        """Return what a shell of a machine makes of words, the last of which is begun."""
        program, function = words[0], f"_shtab_{words[0].replace('-', '_')}"
        script = (
            f"source /usr/share/bash-completion/bash_completion; _completion_loader {program};"
            f" complete -p {program} | grep -q {function} || exit;"
            f" COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; {function};"
            " echo ${COMPREPLY[@]}"
        )
        return self.on(name, f"bash -c {shlex.quote(script)}").split()

    def known_to_zsh(self, name: str) -> dict[str, str]:
        """Return the functions by which zsh completes our programs."""
        script = "autoload -Uz compinit; compinit -u -D; print -l ${(kv)_comps[(I)wgmap*]}"
        found = self.on(name, f"zsh -fc {shlex.quote(script)}").split()
        return dict(zip(found[::2], found[1::2], strict=True))

    # -- waiting -----------------------------------------------------------------------------

    def until(self, condition: Callable[[], T], what: str, deadline_s: float = SETTLED_S) -> T:
        """Wait until something is true and return it; AssertionError after the deadline.

        A machine or daemon that does not answer is a condition that does not hold yet.
        """
        end = time.monotonic() + deadline_s
        while True:
            try:
                if found := condition():
                    return found
            except (SiteError, WgmapError, ValueError):
                pass
            assert time.monotonic() < end, f"not within {deadline_s} s: {what}"
            time.sleep(POLL_S)

    def settle(self) -> None:
        """Wait until every server is in step and every agent is connected to each of them."""
        self.until(self._well, "all servers fresh, with all agents")
        for name in self.agents:
            self.until(lambda name=name: self.agent(name)["registered"], f"{name} registered")  # type: ignore[misc]

    def mend(self) -> None:
        """Boot and start what is off, and wait until all is well, or for long enough."""
        off = [name for name, one in self.site.machines.items() if one.process is None]
        self.site.boot(off)
        for names, unit in ((self.servers, "wgmap-server"), (self.agents, "wgmap-agent")):
            for name in names:
                self.on(name, f"systemctl start --no-block {unit}", check=False)
        with contextlib.suppress(AssertionError):
            self.settle()

    def _well(self) -> bool:
        servers = self.status()["servers"]
        return (
            sorted(one["name"] for one in servers) == sorted(self.servers)
            and all(one["fresh"] for one in servers)
            and all(one["reachable_agents"] == len(self.agents) for one in servers)
        )

    def _host(self, name: str) -> dict[str, str]:
        return {"ansible_host": self.site.machines[name].address}


def eid(name: str) -> str:
    """Return the address of an agent inside the overlay."""
    return f"10.66.{name.removeprefix('a')}.1"


def changed(recap: Recap, names: Iterable[str]) -> dict[str, int]:
    """Return what a playbook changed on some machines."""
    return {name: recap.changed[name] for name in names}
