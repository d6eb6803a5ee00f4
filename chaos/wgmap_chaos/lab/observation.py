"""Looking at a lab's daemons from outside: their pids, sockets and answers."""

import http.client
import json
import socket
import struct
from contextlib import suppress
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from wgmap.errors import UnavailableError, WgmapError
from wgmap_agent.runner import statussocket
from wgmap_chaos.lab.removal import (
    UAPI_ROOT,
    alive,
    namespace_id,
    netns_id,
    processes,
)

ASK_S = 5.0
SERVER_ROLES = ("supervisor", "replica", "responder")


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def admin_get(path: Path, resource: str, **query: str) -> Any | None:
    """Ask a server's admin API; None when it does not know. Raises UnavailableError."""
    target = f"{resource}?{urlencode(query)}" if query else resource
    connection = _UnixConnection(path, ASK_S)
    try:
        connection.request("GET", target)
        response = connection.getresponse()
        body = response.read()
        return json.loads(body) if response.status == http.HTTPStatus.OK else None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise UnavailableError(f"{path}: {error}") from error
    finally:
        connection.close()


def admin_time(path: Path) -> float:
    """Return what time it is for a server (seconds since 1970); raises UnavailableError."""
    connection = _UnixConnection(path, ASK_S)
    try:
        connection.request("HEAD", "/v1/status")
        told = connection.getresponse().getheader("Date", "")
        return parsedate_to_datetime(told).timestamp()
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise UnavailableError(f"{path}: {error}") from error
    finally:
        connection.close()


def wireguard_pid(interface: str) -> int | None:
    """Pid of the process behind a userspace WireGuard interface; None: there is none."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asker, suppress(OSError):
        asker.settimeout(ASK_S)
        asker.connect(str(UAPI_ROOT / f"{interface}.sock"))
        size = struct.calcsize("3i")
        credentials = asker.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        pid: int = struct.unpack("3i", credentials)[0]
        return pid if alive(pid) else None
    return None


def server_pids(netns: str, state_dir: Path) -> dict[str, int | None]:
    """Pids of a server's processes, as its supervisor wrote them; null for those that are gone."""
    written: Any = {}
    with suppress(OSError, ValueError):
        written = json.loads((state_dir / "pids.json").read_bytes())
    if not isinstance(written, dict):
        written = {}
    return {role: _living(netns, written.get(role)) for role in SERVER_ROLES}


def agent_pid(netns: str, config: Path) -> int | None:
    """Pid of the agent that runs with this configuration; None: there is none."""
    try:
        inside = processes({netns_id(netns)})
    except FileNotFoundError:
        return None
    for pid in sorted(inside):
        with suppress(OSError):
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if b"run" in arguments and str(config).encode() in arguments:
                return pid
    return None


def _living(netns: str, pid: object) -> int | None:
    """Return the pid if such a process lives in the namespace: numbers are used again."""
    if not isinstance(pid, int) or not alive(pid):
        return None
    with suppress(OSError):
        if namespace_id(Path(f"/proc/{pid}/ns/net")) == netns_id(netns):
            return pid
    return None


def agent_status(path: Path) -> Any | None:
    """Return what ``wgmap-agent status --json`` says; None when the agent does not answer.

    Asked on the socket: on a busy machine the program may take longer to start than is waited.
    """
    with suppress(WgmapError):
        return statussocket.request(path, {"op": "status"}, ASK_S)
    return None
