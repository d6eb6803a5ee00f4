"""Finding out: mapping, trace, doctor, completion, and how people see it."""

import json
import re
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from support import fsm
from support.operators import WGMAP, Cluster, Ended, serving, wgmap
from wgmap.wg.keys import PublicKey
from wgmap_agent.runner.statussocket import StatusSocket
from wgmap_cluster.fsm.commands import Revoke
from wgmap_cluster.supervisor import keys

CONFIG = """
[server]
name = "ms1"
state_dir = "{folder}/state"
[control]
unprotected = true
listen = "127.0.0.1:1"
"""


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with serving(tmp_path / "admin.sock") as cluster:
        for number in range(1, 5):
            await cluster.apply(fsm.enrol(f"a{number}", number, f"10.66.{number}.0/24"))
        await cluster.apply(fsm.register(1, 1, "10.66.1.0/24"))
        await cluster.apply(fsm.register(2, 1, "10.66.2.0/24", at="192.0.2.12", data=98))
        await cluster.apply(Revoke("a4", fsm.ORIGIN))
        yield cluster


async def good(cluster: Cluster, *arguments: str) -> Any:
    ended = await wgmap(cluster, *arguments, "--json")
    assert ended.code == 0, ended.err
    return json.loads(ended.out)


async def test_mappings(cluster: Cluster) -> None:
    rows = await good(cluster, "mapping", "list")
    assert [(row["peer"], row["prefix"]) for row in rows] == [
        ("a1", "10.66.1.0/24"),
        ("a2", "10.66.2.0/24"),
    ]
    assert await good(cluster, "mapping", "list", "--search", "192.0.2.12") == rows[1:]
    assert await good(cluster, "mapping", "list", "--limit", "1") == rows[:1]
    assert await good(cluster, "mapping", "list", "--instance", "3") == []
    assert await good(cluster, "mapping", "show", "10.66.2.0/24") == rows[1]
    assert (await wgmap(cluster, "mapping", "show", "10.66.2.0/25")).code == 1
    assert (await wgmap(cluster, "mapping", "show", "10.66.2.1/24")).code == 2
    text = (await wgmap(cluster, "mapping", "list")).out
    assert "192.0.2.12:51820" in text


async def traced(cluster: Cluster, *arguments: str) -> tuple[int, dict[str, bool]]:
    ended = await wgmap(cluster, "trace", *arguments, "--json")
    value = json.loads(ended.out)
    assert value["found"] == (ended.code == 0)
    return ended.code, {step["step"]: step["ok"] for step in value["steps"]}


async def test_a_trace_says_where_a_packet_stops(cluster: Cluster) -> None:
    assert await traced(cluster, "10.66.2.9") == (
        0,
        {"enrolled": True, "mapping": True, "authority": True},
    )
    assert (await traced(cluster, "10.66.3.1"))[1]["mapping"] is False  # enrolled, not registered
    assert (await traced(cluster, "10.77.0.1"))[1]["enrolled"] is False
    assert (await traced(cluster, "10.66.4.1"))[1]["enrolled"] is False
    revoked = (await wgmap(cluster, "trace", "10.66.4.1")).out
    assert "STOP enrolled: only of a4, revoked" in revoked
    text = (await wgmap(cluster, "trace", "10.66.2.9")).out
    assert "registered" in text  # the last events of its peer


async def test_a_trace_from_a_peer(cluster: Cluster) -> None:
    before = {"source": True, "enrolled": True, "mapping": True, "authority": True}
    assert await traced(cluster, "10.66.2.9", "--from", "a1") == (
        *(0, before | {"asked": None, "told": None}),
    )
    cluster.responders.tell("a1", "a2", 7.0)
    cluster.responders.tell("a2", "a1", 7.0, "waiting")
    assert (await traced(cluster, "10.66.2.9", "--from", "a1"))[1] == (
        before | {"asked": True, "told": None}
    )
    text = (await wgmap(cluster, "trace", "10.66.2.9", "--from", "a1")).out
    assert re.search(r"ok   asked: a1 was told of a2 by ms1 \d+\.\d s ago", text)
    assert re.search(r"\?    told: a2 was told of a1 by ms1 \d+\.\d s ago", text)
    assert "not acknowledged yet (not known: ms2, ms3)" in text


async def test_a_trace_from_a_peer_says_where_it_stops(cluster: Cluster) -> None:
    cluster.responders.tell("a1", "a2", 1.0)
    cluster.responders.tell("a2", "a1", 1.0, "unheard")
    code, steps = await traced(cluster, "10.66.2.9", "--from", "a1")
    assert (code, steps["asked"], steps["told"]) == (1, True, False)
    for source in ("a3", "a4"):  # not registered, and revoked
        assert (await traced(cluster, "10.66.2.9", "--from", source))[1]["source"] is False
    elsewhere = await traced(cluster, "10.66.2.9", "--from", "a1", "--instance", "7")
    assert elsewhere[1]["source"] is False
    ended = await wgmap(cluster, "trace", "10.66.2.9", "--from", "nobody")
    assert (ended.code, "no peer is called 'nobody'" in ended.err) == (1, True)


async def test_a_trace_from_an_agent(cluster: Cluster, tmp_path: Path) -> None:
    answer = {"eid": "10.66.2.9", "found": False, "steps": [], "servers": [], "contact": []}
    step = {"step": "tunnel", "ok": False, "detail": "no handshake yet"}

    async def handle(question: dict[str, Any]) -> dict[str, Any]:
        assert question == {"op": "trace", "eid": "10.66.2.9"}
        return {**answer, "steps": [step]}

    agent = StatusSocket(tmp_path / "agent.sock", handle)
    await agent.start()
    try:
        ended = await wgmap(cluster, "trace", "10.66.2.9", "--from", str(tmp_path / "agent.sock"))
        assert (ended.code, "STOP tunnel: no handshake yet" in ended.out) == (1, True)
    finally:
        await agent.close()
    ended = await wgmap(cluster, "trace", "10.66.2.9", "--from", str(tmp_path / "none"))
    assert (ended.code, "wgmap-agent trace" in ended.err) == (1, True)


async def findings(cluster: Cluster | None, *arguments: str) -> tuple[int, dict[str, Any]]:
    ended = await wgmap(cluster, "doctor", "--json", *arguments)
    found = {each["check"]: each for each in json.loads(ended.out)}
    assert all(each["verdict"] == "ok" or each["advice"] for each in found.values())
    return ended.code, found


async def test_doctor_finds_what_is_wrong_with_the_cluster(cluster: Cluster) -> None:
    _, found = await findings(cluster)
    assert found["quorum"]["verdict"] == "ok"
    assert {"versions", "clock", "WireGuard", "TUN", "version", "server ms2"} <= set(found)
    cluster.log.lose("ms3")
    code, found = await findings(cluster)
    assert (found["quorum"]["verdict"], found["server ms3"]["verdict"]) == ("warn", "fail")
    assert code == 1
    cluster.log.leader = None
    assert (await findings(cluster))[1]["quorum"]["verdict"] == "fail"


async def test_doctor_finds_what_is_wrong_with_a_server(tmp_path: Path) -> None:
    config = tmp_path / "server.toml"
    config.write_text(CONFIG.format(folder=tmp_path))
    asked = ("--config", str(config), "--socket", str(tmp_path / "none.sock"))
    code, found = await findings(None, *asked)
    assert (code, found["state"]["verdict"], found["admin socket"]["verdict"]) == (
        *(1, "fail", "fail"),
    )
    keys.make(tmp_path / "state")
    (tmp_path / "state").chmod(0o755)
    _, found = await findings(None, *asked)
    assert "open to others" in found["state"]["detail"]
    config.write_text(CONFIG.format(folder=tmp_path).partition("[control]")[0])
    (tmp_path / "state" / "control.key").chmod(0o640)
    (tmp_path / "state").chmod(0o700)
    _, found = await findings(None, *asked)
    assert found["state"]["verdict"] == "ok"
    assert found["control.key"]["verdict"] == "fail"
    assert found["wgm-ctl"]["verdict"] == "fail"
    config.write_text('[server]\nname = "a"\nstate_dir = "/x"\nnaem = 1\n')
    assert "naem" in (await findings(None, *asked))[1]["configuration"]["detail"]


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion(shell: str, tmp_path: Path) -> None:
    ended = subprocess.run([WGMAP, "completion", shell], capture_output=True, text=True, check=True)
    for word in ("trace", "revoke", "--if-revision", "transfer-leader"):
        assert word in ended.stdout
    if shell == "bash":
        script = tmp_path / "completion.sh"
        script.write_text(ended.stdout)
        asked = f"source {script}; COMP_WORDS=(wgmap peer re); COMP_CWORD=2; "
        asked += "_shtab_wgmap; echo ${COMPREPLY[@]}"
        done = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, check=True)
        assert done.stdout.split() == ["revoke"]


@pytest.mark.parametrize(
    ("program", "words", "wanted"),
    [
        ("wgmap-agent", "ro", ["rotate-key"]),
        ("wgmap-server", "che", ["check-state"]),
    ],
)
def test_completion_of_the_other_programs(
    program: str, words: str, wanted: list[str], tmp_path: Path
) -> None:
    path = WGMAP.with_name(program)
    ended = subprocess.run([path, "completion", "bash"], capture_output=True, text=True, check=True)
    script = tmp_path / "completion.sh"
    script.write_text(ended.stdout)
    name = program.replace("-", "_")
    asked = f"source {script}; COMP_WORDS=({program} {words}); COMP_CWORD=1; "
    asked += f"_shtab_{name}; echo ${{COMPREPLY[@]}}"
    done = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout.split() == wanted


async def with_variables(cluster: Cluster, monkeypatch: pytest.MonkeyPatch, **names: str) -> Ended:
    from support import operators  # noqa: PLC0415

    program = operators.WGMAP
    script = cluster.socket.parent / "wgmap"
    lines = "".join(f"export {name}={value}\n" for name, value in names.items())
    script.write_text(f'#!/bin/sh\n{lines}exec {program} "$@"\n')
    script.chmod(0o755)
    with monkeypatch.context() as patched:
        patched.setattr(operators, "WGMAP", script)
        return await wgmap(cluster, "peer", "show", "a1")


async def test_colours_and_hidden_keys(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    key = str(PublicKey(fsm.key(1)))
    plain = await with_variables(cluster, monkeypatch)
    assert key in plain.out
    assert "\033" not in plain.out  # no terminal reads
    coloured = await with_variables(cluster, monkeypatch, WG_COLOR_MODE="always")
    assert re.sub("\033\\[[0-9;]*m", "", coloured.out) == plain.out != coloured.out
    hidden = await with_variables(cluster, monkeypatch, WG_HIDE_KEYS="always")
    assert key not in hidden.out
    assert "(hidden)" in hidden.out


def test_the_page_is_for_who_was_given_its_address(tmp_path: Path) -> None:
    from support.pageproxy import opened  # noqa: PLC0415

    with opened(tmp_path) as proxy:
        assert proxy.get("/v1/status")[0] == 401
        assert proxy.get(f"/?once={'x' * 43}")[0] == 401
        assert proxy.get(proxy.path)[0] == 401  # a guess has used it up
    with opened(tmp_path) as proxy:
        status, headers = proxy.get(proxy.path)
        assert (status, headers["Location"]) == (303, "/")
        cookie = headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        own = {"Cookie": cookie.partition(";")[0]}
        assert proxy.get("/v1/status", own)[0] == 200
        assert proxy.get(proxy.path)[0] == 401  # good once
        assert proxy.get("/v1/status", {**own, "Host": "evil.example"})[0] == 403
        assert proxy.get("/v1/status", {**own, "Origin": "http://evil.example"})[0] == 403
        assert proxy.get("/v1/status", {"Cookie": "wgmap-page=x"})[0] == 401
        assert proxy.ask("POST", "/v1/peers/nobody/revoke", own)[0] == 404
    with opened(tmp_path, "--read-only") as proxy:
        own = {"Cookie": proxy.get(proxy.path)[1]["Set-Cookie"].partition(";")[0]}
        assert proxy.get("/v1/status", own)[0] == 200
        assert proxy.ask("POST", "/v1/peers/nobody/revoke", own)[0] == 403
