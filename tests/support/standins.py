"""Stand-ins for wgmap's programs: they behave like them towards the lab, without any tunnel.

``install`` puts them beside an interpreter of their own; STANDIN in the environment makes one of
them fail: ``die NAME`` (ends when it is started) or ``deaf NAME`` (never registers).
"""

import argparse
import base64
import hashlib
import json
import os
import signal
import socketserver
import stat
import sys
import tomllib
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

PROGRAMS = ("wgmap", "wgmap-server", "wgmap-agent")


def install(directory: Path) -> Path:
    """Write the programs to a directory; return its interpreter, for ``sys.executable``."""
    script = f'#!/bin/sh\nexec {sys.executable} {Path(__file__)} "$(basename "$0")" "$@"\n'
    for name in PROGRAMS:
        _write_program(directory / name, script)
    interpreter = directory / "python"
    _write_program(interpreter, f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    return interpreter


def _write_program(path: Path, script: str) -> None:
    path.write_text(script)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("program", choices=PROGRAMS)
    parser.add_argument("command")
    parser.add_argument("words", nargs="*")
    parser.add_argument("--json", action="store_true")
    for option in ("--dir", "--config", "--socket"):
        parser.add_argument(option, type=Path)
    for option in ("--control-key", "--endpoint-allow"):
        parser.add_argument(option, action="append")
    parser.add_argument("--prefix", action="append")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> None:
    options = _parse(arguments)
    if options.command == "keygen":
        names = ("control_key", "mesh_key" if "server" in options.program else "data_key")
        _say(json.dumps({name: _key(f"{options.dir}{name}") for name in names}))
    elif options.command == "peer":
        _say(_agent_settings(options.words[1], options.prefix))
    elif options.program == "wgmap-server":
        _serve(tomllib.loads(options.config.read_text())["server"])
    else:
        _be_agent(tomllib.loads(options.config.read_text())["agent"])


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _key(seed: str) -> str:
    return base64.b64encode(hashlib.sha256(seed.encode()).digest()).decode()


def _agent_settings(name: str, prefixes: list[str]) -> str:
    return f"[agent]\nname = {json.dumps(name)}\nprefixes = {json.dumps(prefixes)}\n"


def _fails(how: str, name: str) -> bool:
    return os.environ.get("STANDIN") == f"{how} {name}"


def _die_if_told(name: str) -> None:
    _say(f"{name} begins")
    if _fails("die", name):
        sys.exit(f"{name}: the reason why it died")


def _registry(state_dir: str) -> Path:
    """Return what all stand-ins of a lab share: a file for each registered address."""
    path = Path(state_dir).parent / "registered"
    path.mkdir(exist_ok=True)
    return path


def _serve(section: dict[str, Any]) -> None:
    _die_if_told(section["name"])
    registry = _registry(section["state_dir"])
    children = {"replica": _child(), "responder": _child()}
    pids = {"supervisor": os.getpid(), **children}
    (Path(section["state_dir"]) / "pids.json").write_text(json.dumps(pids))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            eid = parse_qs(url.query).get("eid", [""])[0]
            answer = (
                {"leader": "ms1", "cluster_id": "00"}
                if url.path == "/v1/status"
                else {"found": (registry / eid).exists()}
            )
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *_arguments: object) -> None:
            pass

        def address_string(self) -> str:
            return "unix"

    Path(section["admin_socket"]).unlink(missing_ok=True)
    with socketserver.UnixStreamServer(section["admin_socket"], Handler) as server:
        server.serve_forever()


def _child() -> int:
    """Start a process that outlives this one, as a supervisor's child may."""
    pid = os.fork()
    if not pid:
        signal.pause()
    return pid


def _be_agent(section: dict[str, Any]) -> None:
    _die_if_told(section["name"])
    registry = _registry(section["state_dir"])
    for prefix in section["prefixes"]:
        (registry / prefix.partition("/")[0]).touch()
    registered = not _fails("deaf", section["name"])

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.rfile.readline()
            self.wfile.write(json.dumps({"ok": {"registered": registered}}).encode() + b"\n")

    Path(section["socket"]).unlink(missing_ok=True)
    with socketserver.UnixStreamServer(section["socket"], Handler) as server:
        server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1:])
