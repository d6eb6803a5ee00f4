"""The supervisor's parts, and the program around it."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from wgmap import systemd
from wgmap.config import parse
from wgmap.errors import ConfigError, ConflictError
from wgmap.wg.keys import PrivateKey, PublicKey
from wgmap_cluster.config import ServerConfig
from wgmap_cluster.main import main
from wgmap_cluster.supervisor import child, keys, tunnels
from wgmap_cluster.supervisor.lock import StateLock
from wgmap_cluster.supervisor.restarts import LONGEST_S, STEADY_S, Restarts

# ---------------------------------------------------------------------------------- parts


def test_a_child_is_started_again_at_once_and_then_ever_more_slowly() -> None:
    restarts = Restarts()
    delays = [restarts.delay(0.1) for _ in range(10)]
    assert delays[:4] == [0.0, 0.1, 0.2, 0.4]
    assert delays[-1] == LONGEST_S
    assert restarts.delay(STEADY_S) == 0.0
    assert restarts.delay(0.1) == 0.1


def test_the_lock_is_held_once_and_free_afterwards(tmp_path: Path) -> None:
    state = tmp_path / "new" / "state"
    with StateLock(state):
        assert state.stat().st_mode & 0o777 == 0o700
        with pytest.raises(ConflictError, match=f"in use by process {os.getpid()}"):
            StateLock(state).__enter__()
    with StateLock(state):
        pass


def test_the_lock_is_not_inherited(tmp_path: Path) -> None:
    with StateLock(tmp_path):
        lasting = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with StateLock(tmp_path):
        assert lasting.poll() is None
    lasting.communicate(b"\n")


def test_a_state_directory_that_cannot_be_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="file"):
        StateLock(tmp_path / "file" / "state").__enter__()


def test_a_child_is_not_started_where_its_parent_is_gone_already(tmp_path: Path) -> None:
    command = child.command("this", ())
    command[command.index(str(os.getpid()))] = "1"  # as if it had been given to init meanwhile
    ended = subprocess.run(command, check=False, capture_output=True, text=True)
    assert ended.returncode == 1
    assert "parent died" in ended.stderr


def test_systemd_is_told_and_its_absence_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        systemd.notify("READY=1", "STATUS=x")
        assert manager.recv(100) == b"READY=1\nSTATUS=x"
    systemd.notify("STOPPING=1")
    monkeypatch.delenv("NOTIFY_SOCKET")
    systemd.notify("READY=1")


# ----------------------------------------------------------------------------------- plan


def config(state: Path, text: str = "") -> ServerConfig:
    head = f'[server]\nname = "ms1"\nstate_dir = "{state}"\n'
    return parse((head + text).encode(), ServerConfig, "server.toml")


def entry(public: dict[str, str], control: str = "fd77:676d:6170::5") -> str:
    return (
        f'[mesh]\n[[bootstrap.server]]\nname = "ms1"\nmesh_key = "{public["mesh_key"]}"\n'
        f'control_key = "{public["control_key"]}"\nendpoint = "192.0.2.1"\n'
        f'mesh_address = "fd78::1"\ncontrol_address = "{control}"\n'
    )


def test_a_server_has_a_mesh_and_a_control_tunnel_at_its_bootstrap_addresses(
    tmp_path: Path,
) -> None:
    public = keys.make(tmp_path)
    plan = tunnels.plan(config(tmp_path, entry(public)))
    mesh, control = plan.tunnels
    assert (mesh.interface, str(mesh.address), mesh.port) == ("wgm-mesh", "fd78::1", 51821)
    assert str(mesh.key.public) == public["mesh_key"]
    assert (control.interface, control.port) == ("wgm-ctl", 51822)
    assert (str(plan.listen), plan.port, plan.interface) == ("fd77:676d:6170::5", 4342, "wgm-ctl")


def test_a_single_server_derives_its_control_address(tmp_path: Path) -> None:
    keys.make(tmp_path)
    plan = tunnels.plan(config(tmp_path))
    assert [spec.interface for spec in plan.tunnels] == ["wgm-ctl"]
    assert str(plan.listen).startswith("fd77:676d:6170:")


def test_an_unprotected_listener_needs_no_key(tmp_path: Path) -> None:
    text = '[control]\nunprotected = true\nlisten = "127.0.0.1:4342"\n'
    plan = tunnels.plan(config(tmp_path / "none", text))
    assert (plan.tunnels, str(plan.listen), plan.interface) == ((), "127.0.0.1", None)


def test_keys_that_are_missing_or_not_those_of_the_bootstrap_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="wgmap-server keygen --dir"):
        tunnels.plan(config(tmp_path))
    public = keys.make(tmp_path)
    other = public | {"control_key": str(PrivateKey.generate().public)}
    with pytest.raises(ConfigError, match=r"not that of .*control\.key"):
        tunnels.plan(config(tmp_path, entry(other)))
    with pytest.raises(ConfigError, match=r"not in control\.prefix"):
        tunnels.plan(config(tmp_path, entry(public, control="fd99::1")))
    with pytest.raises(ConfigError, match="wants a"):
        tunnels.plan(config(tmp_path, "[mesh]\n"))


# -------------------------------------------------------------------------------- program


def test_keygen_makes_private_files_and_keeps_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "state"
    assert main(["keygen", "--dir", str(folder), "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert set(first) == {"control_key", "mesh_key"}
    assert PublicKey.parse(first["mesh_key"]) == keys.load(folder, keys.MESH_KEY).public
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert main(["--json", "keygen", "--dir", str(folder)]) == 0
    assert json.loads(capsys.readouterr().out) == first
    assert main(["keygen", "--dir", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f'{name} = "{value}"' for name, value in first.items()]


def test_a_wrong_configuration_is_one_line_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "server.toml"
    assert main(["run", "--config", str(path)]) == 2
    path.write_text('[server]\nname = "ms1"\nstate_dir = "/x"\nnmae = 1\n')
    assert main(["run", "--config", str(path)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "No such file" in lines[0]
    assert "nmae: unknown key" in lines[1]
    path.write_text(f'[server]\nname = "ms1"\nstate_dir = "{tmp_path}"\n')
    assert main(["run", "--config", str(path)]) == 2
    assert "keygen" in capsys.readouterr().err


def test_check_state_tells_what_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check-state", str(tmp_path)]) == 0
    assert "empty" in capsys.readouterr().out
    assert main(["check-state", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["empty"] is True
    assert main(["check-state", str(tmp_path / "none")]) == 1
    assert "no such directory" in capsys.readouterr().err


def test_a_usage_error_exits_with_2() -> None:
    with pytest.raises(SystemExit) as ended:
        main(["run"])
    assert ended.value.code == 2
