"""A real supervisor with real children, and ``support.stub_replica`` in the replica's place."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from support.netns import alive
from support.tables import key, request
from wgmap.lisp.codec import decode
from wgmap.lisp.messages import MapReply

DEADLINE_S = 15.0 * float(os.environ.get("WGMAP_TIME_SCALE", "1"))
ROLES = ("supervisor", "replica", "responder")
PROGRAM = """
import sys
from pathlib import Path
from wgmap.errors import WgmapError
from wgmap_cluster.supervisor import supervisor
try:
    supervisor.run(Path(sys.argv[1]), sys.argv[2])
except WgmapError as error:
    print(error, file=sys.stderr)
    sys.exit(int(error.exit_code))
"""


def wait_for(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, f"not in time: {what}"
        time.sleep(0.01)


class Server:
    """A supervisor under test."""

    def __init__(
        self,
        folder: Path,
        control: str = "",
        prefix: Sequence[str] = (),
        replica: str = "support.stub_replica",
        sections: str = "",
    ) -> None:
        """Start it: with ``control`` as that section, or unprotected on loopback."""
        self.state = folder / "state"
        self.state.mkdir(mode=0o700, exist_ok=True)
        self.address = _free_address()
        self.config = folder / "server.toml"
        listen = f'unprotected = true\nlisten = "{self.address[0]}:{self.address[1]}"\n'
        self.config.write_text(
            f'[server]\nname = "ms1"\nstate_dir = "{self.state}"\n'
            f'admin_socket = "{folder}/admin.sock"\n[control]\n{control or listen}'
            f"{sections}"
        )
        self.prefix = prefix
        self._replica = replica
        self.log = (folder / "log").open("w+b")
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(str(folder / "notify"))
        self.notify.settimeout(DEADLINE_S)
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        """Start it; a ``replica`` of somebody else's is found by PYTHONPATH."""
        folders = (str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", ""))
        path = os.pathsep.join(filter(None, folders))
        environment = os.environ | {"PYTHONPATH": path, "NOTIFY_SOCKET": self.notify.getsockname()}
        command = [*self.prefix, sys.executable, "-c", PROGRAM, str(self.config), self._replica]
        return subprocess.Popen(command, env=environment, stdout=self.log, stderr=self.log)

    def ready(self) -> None:
        self.told(b"READY=1")

    def told(self, what: bytes) -> None:
        """Wait until it tells its manager so, beside its signs of life."""
        while not (said := self.notify.recv(100)).startswith(what):
            assert said == b"WATCHDOG=1"

    def pids(self) -> dict[str, int]:
        found: dict[str, int] = json.loads((self.state / "pids.json").read_text())
        return found

    def answers(self) -> bool:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as agent:
            agent.bind(("127.0.0.21", 0))
            agent.settimeout(0.2)
            agent.sendto(request("10.66.2.1/32"), self.address)
            try:
                reply = decode(agent.recv(4096))
            except TimeoutError:
                return False
        assert isinstance(reply, MapReply)
        return reply.records[0].locators[0].key == key("a2")

    def output(self) -> str:
        self.log.seek(0)
        return self.log.read().decode()

    def wait(self) -> int:
        return self.process.wait(DEADLINE_S)

    def close(self) -> None:
        children = []
        if (self.state / "pids.json").exists():
            children = [self.pids()[role] for role in ROLES[1:]]
        self.process.kill()
        self.process.wait()
        for pid in children:
            wait_for(lambda pid=pid: not alive(pid), f"child {pid} ends")  # type: ignore[misc]
        self.log.close()
        self.notify.close()


def _free_address() -> tuple[str, int]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.20", 0))
        address: tuple[str, int] = probe.getsockname()
        return address
