"""The set of servers changes in a lab that works: added, removed, replaced, rebooted as a whole."""

import json
import os
import shutil
import signal
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from support.lab import Lab, execute, program, running_lab, wait_until
from wgmap.errors import UnavailableError
from wgmap_chaos.lab import observation, removal, shell, toml, topology
from wgmap_chaos.lab.inventory import AgentEntry, ServerEntry

pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.timeout(300)]
GONE_S, READY_S = 60.0, 60.0
FOLLOW_S = 20.0  # usually two or three: a push, a tunnel, and a server that counts it


@contextmanager
def lookups(lab: Lab) -> Iterator[None]:
    """Send first packets between strangers all the time; each must come back."""
    source, target = lab.file.agents[:2]
    stop, found = threading.Event(), list[float | None]()

    def look() -> None:
        while not stop.is_set():
            lab.forget(source, target)
            found.append(lab.ping(source, target))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
        wait_until(lambda: len(found) > 2, "lookups", 30)
    finally:
        stop.set()
        thread.join()
    assert None not in found


def pids(server: ServerEntry) -> list[int]:
    found = observation.server_pids(server.netns, server.state_dir).values()
    return [pid for pid in found if pid is not None]


def end(*servers: ServerEntry) -> None:
    """Kill all processes of these servers, all at once."""
    ended = [pid for server in servers for pid in pids(server)]
    for pid in ended:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not any(map(removal.alive, ended)), "they are gone", GONE_S)


def wipe(server: ServerEntry) -> dict[str, str]:
    """Give a server that does not run an empty disk and new keys; return these."""
    shutil.rmtree(server.state_dir)
    server.state_dir.mkdir(mode=0o700)
    argv = [program("wgmap-server"), "keygen", "--dir", str(server.state_dir), "--json"]
    made = execute(*argv)
    assert made.returncode == 0, made.stderr
    keys: dict[str, str] = json.loads(made.stdout)
    _configure(server.config, server.name, keys)
    return keys


def _configure(path: Path, name: str, keys: dict[str, str]) -> None:
    document = tomllib.loads(path.read_text())
    for each in document["bootstrap"]["server"]:
        if each["name"] == name:
            each.update(keys)
    path.write_text(toml.dumps(document))


def start(lab: Lab, server: ServerEntry) -> None:
    """Start a server that cannot know a leader yet, and wait until it answers."""
    argv = [program("wgmap-server"), "run", "--config", str(server.config)]
    log = topology.paths(lab.directory).log(server.name)
    shell.Daemon(shell.inside(server.netns, argv), log)
    wait_until(lambda: _answers(server), "it answers", READY_S)


def _answers(server: ServerEntry) -> bool:
    with suppress(UnavailableError):
        return bool(observation.admin_get(server.admin_socket, "/v1/status"))
    return False


def add(lab: Lab, server: ServerEntry, keys: dict[str, str], on: ServerEntry) -> None:
    lab.wgmap(
        *("server", "add", server.name, "--endpoint", str(server.underlay)),
        *("--mesh-key", keys["mesh_key"], "--control-key", keys["control_key"]),
        *("--mesh-address", str(server.mesh), "--control-address", str(server.control)),
        server=on,
    )


def shown(lab: Lab, on: ServerEntry) -> dict[str, Any]:
    view = json.loads(lab.wgmap("server", "list", "--json", server=on))
    return {each["name"]: each for each in view["servers"]}


def together(lab: Lab, servers: list[ServerEntry]) -> bool:
    """Whether each of these servers votes, serves with authority, and sees all the others."""
    names = {server.name for server in servers}
    for server in servers:
        view = shown(lab, server)
        if set(view) != names or not all(v["member"] and v["connected"] for v in view.values()):
            return False
        states = {each["name"]: each for each in lab.status(server)["servers"]}
        if not states[server.name]["fresh"]:
            return False
    return True


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    options = ("--servers", "4", "--agents", "2")
    with running_lab(tmp_path_factory.mktemp("lgset"), *options) as running:
        yield running


def test_a_server_is_replaced_by_one_with_an_empty_disk_under_load(four: Lab) -> None:
    *others, fourth = four.file.servers
    with lookups(four):
        four.wgmap("server", "remove", "ms4", server=others[0])
        end(fourth)
        assert set(shown(four, others[1])) == {"ms1", "ms2", "ms3"}
    for agent in four.file.agents:
        former = control_peers(four, agent)
        wait_until(lambda a=agent: len(control_peers(four, a)) == 3, "it follows")  # type: ignore[misc]
        assert control_peers(four, agent).keys() <= former.keys()
    keys = wipe(fourth)
    start(four, fourth)  # it runs, and nobody lets it in yet
    with lookups(four):
        add(four, fourth, keys, on=others[2])
        wait_until(lambda: together(four, [*others, fourth]), "all four", READY_S)
        # Nobody touched the agents: the server set brought them the new key.
        wait_until(lambda: reachable(four, fourth) == 2, "their tunnels to it stand", FOLLOW_S)
    assert shown(four, fourth)["ms4"]["mesh_key"] == keys["mesh_key"]


def reachable(lab: Lab, server: ServerEntry) -> int | None:
    views = {view["name"]: view for view in lab.status()["servers"]}
    found: int | None = views[server.name]["reachable_agents"]
    return found


def control_peers(lab: Lab, agent: AgentEntry) -> dict[str, int]:
    """Return what came from each peer of an agent's control interface, in bytes, by key."""
    out = lab.run(agent.netns, "wg", "show", agent.control_interface, "transfer")
    return {key: int(received) for key, received, _ in map(str.split, out.splitlines())}


def test_an_agent_that_starts_again_keeps_the_tunnels_to_servers_that_it_learnt(four: Lab) -> None:
    """Its configuration names the key that the fourth server had before it was replaced."""
    agent, fourth = four.file.agents[0], four.file.server("ms4")
    learnt = shown(four, four.file.servers[0])["ms4"]["control_key"]
    assert learnt not in agent.config.read_text()
    before = wait_until(lambda: control_peers(four, agent).get(learnt), "it heard the server")
    pid = agent.pids["agent"]
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not removal.alive(pid), "it is dead", GONE_S)
    four.chaos("start-agents", agent.name)
    # A peer that was taken away and added again would count from nothing.
    assert control_peers(four, agent)[learnt] >= before
    addresses = {one["control"] for one in four.agent_status(agent)["servers"]}
    assert str(fourth.control) in addresses
    assert len(addresses) == 4
    assert reachable(four, fourth) == 2


def test_all_servers_killed_at_once_come_back_with_the_server_that_was_added(four: Lab) -> None:
    servers = list(four.file.servers)
    end(*servers)
    four.chaos("start-servers")
    wait_until(lambda: together(four, servers), "all four", READY_S)


def test_leadership_goes_where_an_operator_wants_it(four: Lab) -> None:
    leader = four.status()["leader"]
    other = next(server for server in four.file.servers if server.name != leader)
    with lookups(four):
        said = four.wgmap("server", "transfer-leader", other.name, server=other)
    assert said == f"{other.name} leads\n"
    wait_until(lambda: four.status()["leader"] == other.name, "it leads")


def test_the_leader_is_removed_under_load(four: Lab) -> None:
    leader = four.status()["leader"]
    rest = [server for server in four.file.servers if server.name != leader]
    with lookups(four):
        four.wgmap("server", "remove", leader, server=rest[0])
        wait_until(lambda: together(four, rest), "the others", READY_S)
    refused = execute(
        *(program("wgmap"), "--socket", str(rest[0].admin_socket), "server", "remove"),
        rest[0].name,
    )
    assert refused.returncode != 0
    assert "cannot remove itself" in refused.stderr
