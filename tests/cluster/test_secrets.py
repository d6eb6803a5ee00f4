"""Nothing that is secret is where somebody might look: files, processes, logs, answers, errors."""

import json
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.api_server import Api, serving
from support.operators import WGMAP
from wgmap.wg import keyfile
from wgmap_cluster.main import main as wgmap_server

SECRET = "correct-horse-battery"
PATHS = (
    *("/v1/peers", "/v1/peers/x1", "/v1/status", "/v1/audit", "/v1/events", "/v1/counters"),
    *("/v1/history", "/v1/servers", "/v1/instances", "/v1/revocations", "/v1/mappings"),
    *("/v1/resolve?eid=10.66.9.1", "/v1/openapi.json"),
)


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    with serving(tmp_path) as made:
        yield made


def wgmap(folder: Path, *arguments: str, said: str = "") -> subprocess.CompletedProcess[str]:
    command = [str(WGMAP), "--socket", str(folder / "admin.sock"), *arguments]
    return subprocess.run(command, input=said, capture_output=True, text=True, check=False)


def enrol(folder: Path) -> None:
    client = ("peer", "add", "x1", "--prefix", "10.66.9.0/24", "--control-address", "127.0.0.9")
    done = wgmap(folder, *client, "--lisp-key-file", "-", said=SECRET + "\n")
    assert done.returncode == 0, done.stderr
    assert SECRET not in done.stdout + done.stderr


def ask(api: Api, path: str, body: bytes | None = None) -> str:
    request = urllib.request.Request(api.url + path, data=body)
    request.add_header("Authorization", f"Bearer {api.token}")
    context = api.files.trusting()
    try:
        with urllib.request.urlopen(request, context=context, timeout=10) as answer:
            text: str = answer.read().decode()
    except urllib.error.HTTPError as error:
        text = error.read().decode()
    return text


def test_a_shared_secret_is_shown_nowhere(api: Api, tmp_path: Path) -> None:
    enrol(tmp_path)
    bad = {"name": "x2", "prefixes": ["10.0.0.1/8"], "lisp_key": SECRET, "control_address": 7}
    said = [ask(api, path) for path in PATHS]
    said += [
        ask(api, "/v1/peers", json.dumps(body).encode()) for body in (bad, {"x": SECRET}, SECRET)
    ]
    said += [wgmap(tmp_path, "peer", "show", "x1").stdout, api.server.output()]
    said += [Path(f"/proc/{pid}/cmdline").read_text() for pid in api.server.pids().values()]
    assert all(text for text in said)
    assert not [text for text in said if SECRET in text or api.token in text]


def test_a_backup_with_secrets_says_so(api: Api, tmp_path: Path) -> None:
    file = tmp_path / "backup"
    done = wgmap(tmp_path, "backup", str(file))
    assert "ARE in it" not in done.stderr
    enrol(tmp_path)
    done = wgmap(tmp_path, "backup", str(file))
    assert "shared secrets of LISP clients (1) ARE in it" in done.stderr
    assert file.stat().st_mode & 0o777 == 0o600
    assert api.token.encode() not in file.read_bytes()


def test_nobody_else_may_open_what_a_server_writes(api: Api, tmp_path: Path) -> None:
    enrol(tmp_path)
    state = api.server.state
    assert state.stat().st_mode & 0o077 == 0  # so nothing below is reached, whatever its mode
    assert (tmp_path / "admin.sock").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "tokens").stat().st_mode & 0o777 == 0o600
    with pytest.raises(ConnectionRefusedError), socket.socket() as other:
        other.connect(("127.0.0.2", int(api.url.rpartition(":")[2])))  # it listens where it is told


def test_keys_are_private_from_their_first_moment(tmp_path: Path) -> None:
    assert wgmap_server(["keygen", "--dir", str(tmp_path / "keys")]) == 0
    files = list((tmp_path / "keys").iterdir())
    assert len(files) == 2
    for path in files:
        assert path.stat().st_mode & 0o777 == 0o600
        private = path.read_text().strip()
        assert private not in repr(keyfile.load(path))
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700
