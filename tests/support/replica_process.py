"""A replica as a process of its own, with an unprotected listener in its configuration."""

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

from support.replica import DEADLINE_S, Client
from wgmap_cluster.feed import SOCKET_NAME

CONFIG = """
[server]
name = "ms1"
state_dir = "{directory}/state"
admin_socket = "{directory}/admin.sock"
[control]
unprotected = true
listen = "127.0.0.1:4342"
[overlay]
prefixes = ["10.66.0.0/16"]
"""


class ReplicaProcess:
    """Start, stop and kill; its output goes to a file."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.config = directory / "server.toml"
        self.config.write_text(CONFIG.format(directory=directory))
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        return self.directory / "state" / SOCKET_NAME

    @property
    def admin(self) -> Path:
        return self.directory / "admin.sock"

    def output(self) -> str:
        return (self.directory / "output").read_text()

    def start(self) -> None:
        with (self.directory / "output").open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "wgmap_cluster.replica", "--config", str(self.config)],
                stdout=output,
                stderr=output,
            )

    async def attach(self, index: int = 0) -> Client:
        """Attach, and wait until answers are authoritative."""
        client = await Client.attach(self.socket, index)
        await client.until(lambda: client.lease)
        return client

    async def wait(self) -> int:
        assert self.process is not None
        async with asyncio.timeout(DEADLINE_S):
            while (code := self.process.poll()) is None:  # noqa: ASYNC110  # tells by no event
                await asyncio.sleep(0.01)
        return code

    async def terminate(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return await self.wait()

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
