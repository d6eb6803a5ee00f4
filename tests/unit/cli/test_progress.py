"""Whatever takes over a second says so on a terminal, and nowhere else."""

import argparse
import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from support import fsm
from support.operators import WGMAP, Cluster, serving, wgmap
from support.terminal import CLEAR, terminal
from wgmap.progress import QUIET_S
from wgmap.wg.keys import PublicKey
from wgmap_cluster.cli import arguments
from wgmap_cluster.cli.client import Client
from wgmap_cluster.cli.servers import joining

KEY = str(PublicKey(fsm.key(1)))
ADDED = (
    *("--mesh-key", KEY, "--control-key", KEY, "--endpoint", "192.0.2.4"),
    *("--mesh-address", "fd77::4", "--control-address", "fd77:1::4"),
)
# Each command with what it takes ("FILE" is a backup, "PEERS" a list of peers), and what it says.
COMMANDS = {
    "status": ("", "waiting for the server"),
    "resolve": ("10.66.1.1", "waiting for the server"),
    "trace": ("10.66.1.1", "waiting for the server"),
    "audit": ("", "waiting for the server"),
    "events": ("--follow", "waiting for what happens"),
    "doctor": ("--config /dev/null", "looking at the cluster"),
    "page": ("", "waiting for the server"),
    "backup": ("OUT", "waiting for the server"),
    "restore": ("FILE", "waiting until all of it is in the log"),
    "peer add": (f"a2 --prefix 10.66.2.1/32 --control-key {KEY}", "waiting for the server"),
    "peer set": ("a1 --limit 3", "waiting for the server"),
    "peer list": ("", "waiting for the server"),
    "peer show": ("a1", "waiting for the server"),
    "peer revoke": ("a1", "waiting until every server answers without a1"),
    "peer import": ("PEERS", "0 of 1 peers"),
    "mapping list": ("", "waiting for the server"),
    "mapping show": ("10.66.1.1", "waiting for the server"),
    "instance list": ("", "waiting for the server"),
    "instance set": ("1 --max-mappings 5", "waiting for the server"),
    "server list": ("", "waiting for the server"),
    "server add": (" ".join(("ms4", *ADDED)), "waiting for ms4"),
    "server remove": ("ms3", "waiting until ms3 does not vote any more"),
    "server transfer-leader": ("ms2", "waiting for ms2 to lead"),
}
ALONE = {"completion", "token make"}  # they ask nobody


def commands(parser: argparse.ArgumentParser, path: str = "") -> Iterator[str]:
    """Yield the names of all commands."""
    levels = [
        action for action in parser._actions if isinstance(action, argparse._SubParsersAction)
    ]
    if not levels:
        yield path.strip()
    for level in levels:
        for name, command in level.choices.items():
            yield from commands(command, f"{path} {name}")


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with serving(tmp_path / "admin.sock") as cluster:
        await cluster.apply(fsm.enrol("a1", 1, "10.66.1.0/24"))
        yield cluster


def peers(count: int) -> str:
    return "".join(
        json.dumps(
            {
                "name": f"p{number}",
                "prefixes": [f"10.67.{number >> 8}.{number & 255}/32"],
                "control_key": str(
                    PublicKey(bytes([7, number >> 8, number & 255]).ljust(32, b"k"))
                ),
            }
        )
        + "\n"
        for number in range(count)
    )


def test_every_command_is_looked_at() -> None:
    assert set(commands(arguments.parser())) == set(COMMANDS) | ALONE


async def test_each_command_says_what_it_waits_for_and_leaves_nothing(
    cluster: Cluster, tmp_path: Path
) -> None:
    backup, many, deaf = tmp_path / "backup", tmp_path / "peers", tmp_path / "deaf.sock"
    assert (await wgmap(cluster, "backup", str(backup))).code == 0
    many.write_text(peers(1))
    places = {"FILE": str(backup), "OUT": str(tmp_path / "out"), "PEERS": str(many)}
    few = asyncio.Semaphore(4)

    async def check(name: str, given: str, said: str) -> None:
        words = [places.get(word, word) for word in given.split()]
        async with (
            few,
            terminal("wgmap", "--socket", str(deaf), *name.split(), *words) as shown,
        ):
            await shown.shows(f"wgmap: {said}")
            shown.interrupt()
            assert await shown.ends() == (130, ""), (name, shown.text)
            assert shown.left == "", (name, shown.text)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(deaf))
        listener.listen(64)  # connections come to stand, and nobody answers
        async with asyncio.TaskGroup() as tasks:
            for name, (given, said) in COMMANDS.items():
                tasks.create_task(check(name, given, said))


async def test_what_is_said_to_programs_is_not_touched(cluster: Cluster, tmp_path: Path) -> None:
    file = tmp_path / "peers"
    file.write_text(peers(900))
    cluster.log.gate.clear()
    cluster.log.asked.clear()
    command = ("--socket", str(cluster.socket), "peer", "import", str(file), "--json")
    async with terminal("wgmap", *command) as shown:
        await shown.shows("wgmap: 0 of 900 peers (1 s)")
        cluster.log.gate.set()
        code, out = await shown.ends()
        assert (code, json.loads(out)) == (0, {"enrolled": 900, "unchanged": 0})
        assert shown.left == ""


async def test_what_is_quick_draws_nothing(cluster: Cluster) -> None:
    async with terminal("wgmap", "--socket", str(cluster.socket), "peer", "list") as shown:
        code, _ = await shown.ends()
        assert (code, shown.text) == (0, "")


async def test_a_warning_stands_on_a_line_of_its_own(cluster: Cluster) -> None:
    cluster.log.followers.discard("ms3")
    async with terminal(
        "wgmap", "--socket", str(cluster.socket), "peer", "revoke", "a1", columns=40
    ) as shown:
        code, out = await shown.ends()
        assert (code, "a1 is revoked" in out) == (3, True)
        assert shown.left.splitlines()[0].startswith("wgmap: not yet confirmed by: ms3")


async def test_what_is_longer_than_the_line_is_cut(cluster: Cluster, tmp_path: Path) -> None:
    file = tmp_path / "peers"
    file.write_text(peers(1))
    cluster.log.gate.clear()
    command = ("--socket", str(cluster.socket), "peer", "import", str(file))
    async with terminal("wgmap", *command, columns=12) as shown:
        await shown.shows("wgmap: 0 of")
        cluster.log.gate.set()
        assert (await shown.ends())[0] == 0
        drawn = {line.strip("\r") for line in shown.text.split(CLEAR)}
        assert drawn == {"", "wgmap: 0 of"}


@pytest.mark.parametrize("where", ["pipe", "dumb"])
async def test_elsewhere_nothing_is_drawn(cluster: Cluster, tmp_path: Path, where: str) -> None:
    file = tmp_path / "peers"
    file.write_text(peers(1))
    cluster.log.gate.clear()
    cluster.log.asked.clear()

    async def let_go() -> None:
        await cluster.log.asked.wait()
        await asyncio.sleep(QUIET_S + 0.3)  # longer than it would have kept quiet
        cluster.log.gate.set()

    waiting = asyncio.create_task(let_go())
    if where == "pipe":
        ended = await wgmap(cluster, "peer", "import", str(file))
        assert (ended.code, ended.err) == (0, "")
    else:
        command = ("--socket", str(cluster.socket), "peer", "import", str(file))
        async with terminal("wgmap", *command, environment={"TERM": "dumb"}) as shown:
            assert (await shown.ends())[0] == 0
            assert shown.text == ""
    await waiting


async def test_with_its_standard_error_shut_a_command_works(cluster: Cluster) -> None:
    process = await asyncio.create_subprocess_exec(
        *("sh", "-c", 'exec "$0" "$@" 2>&-', str(WGMAP), "peer", "list", "--json"),
        env={**os.environ, "WGMAP_SOCKET": str(cluster.socket)},
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    assert (process.returncode, len(json.loads(out))) == (0, 1)


async def test_how_far_a_server_is_that_is_added(cluster: Cluster, tmp_path: Path) -> None:
    def look(name: str) -> str:
        return joining(Client(cluster.socket).path, name)

    assert await asyncio.to_thread(look, "ms4") == "waiting for ms4: no connection with it yet"
    cluster.log.hear("ms2", cluster.log.index)
    assert await asyncio.to_thread(look, "ms2") == "waiting for ms2: it gets the log"
    assert joining(tmp_path / "none", "ms4") == "waiting for ms4"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("wgmap-agent", "--socket", "SOCKET", "status"), "waiting for the agent"),
        (("wgmap-agent", "trace", "10.66.1.1", "--socket", "SOCKET"), "waiting for the agent"),
    ],
)
async def test_an_agent_is_waited_for_in_the_same_way(
    tmp_path: Path, command: tuple[str, ...], said: str
) -> None:
    path = str(tmp_path / "agent.sock")
    program, *words = (path if word == "SOCKET" else word for word in command)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)
        async with terminal(program, *words) as shown:
            await shown.shows(f"{program}: {said}")
            shown.interrupt()
            assert await shown.ends() == (130, "")
            assert shown.left == ""
