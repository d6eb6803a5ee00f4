"""WireGuard alone between two agents' machines: static endpoints, nothing else. The comparison."""

import asyncio
import ipaddress
import os
import subprocess
from types import TracebackType
from typing import Self

from wgmap.clock import now
from wgmap.wg.keys import PrivateKey
from wgmap_chaos.moves.mover import Mover
from wgmap_chaos.programs import ProgramError

PORT = 51871
START_S = 10.0


class _End:
    """One end of the tunnel."""

    def __init__(self, mover: Mover, number: int) -> None:
        self.mover = mover
        self.key = PrivateKey.generate()
        self.interface = f"plain{os.getpid() % 10**6}-{number}"
        self.eids = (
            ipaddress.ip_address(f"10.99.0.{number}"),
            ipaddress.ip_address(f"fd99::{number}"),
        )
        self.process: subprocess.Popen[bytes] | None = None

    def run(self, *argv: str, text: str = "", check: bool = True) -> None:
        command = ["ip", "netns", "exec", self.mover.agent.netns, *argv]
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        if check and done.returncode:
            raise ProgramError(f"{' '.join(command)}: {done.stderr.strip()}")

    def exists(self) -> bool:
        command = ["ip", "-n", self.mover.agent.netns, "link", "show", self.interface]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


class PlainTunnel:
    """An async context manager around a wireguard-go device at each end."""

    def __init__(self, one: Mover, other: Mover) -> None:
        self.ends = (_End(one, 1), _End(other, 2))

    async def __aenter__(self) -> Self:
        try:
            for end, other in zip(self.ends, reversed(self.ends), strict=True):
                await self._open(end, other)
            self.set_endpoints()
        except BaseException:
            self._close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes that carry the tunnel."""
        return tuple(end.process.pid for end in self.ends if end.process is not None)

    def set_endpoints(self) -> None:
        """Tell both ends by hand where the other is, as an operator would after a move."""
        for end, other in zip(self.ends, reversed(self.ends), strict=True):
            endpoint = f"{other.mover.addresses[0]}:{PORT}"
            end.run("wg", "set", end.interface, "peer", str(other.key.public), "endpoint", endpoint)

    async def _open(self, end: _End, other: _End) -> None:
        command = ("ip", "netns", "exec", end.mover.agent.netns, "wireguard-go", "-f")
        quiet = subprocess.DEVNULL
        end.process = await asyncio.to_thread(
            subprocess.Popen, (*command, end.interface), stdout=quiet, stderr=quiet
        )
        deadline = now() + START_S
        while not end.exists():  # a process outside has no event
            if now() > deadline:
                raise ProgramError(f"wireguard-go made no {end.interface}")
            await asyncio.sleep(0.05)
        allowed = ",".join(f"{eid}/{eid.max_prefixlen}" for eid in other.eids)
        end.run(
            *("wg", "set", end.interface, "listen-port", str(PORT), "private-key", "/dev/stdin"),
            *("peer", str(other.key.public), "allowed-ips", allowed),
            text=end.key.encode(),
        )
        for eid in end.eids:
            end.run("ip", "addr", "add", f"{eid}/{eid.max_prefixlen}", "dev", end.interface)
        end.run("ip", "link", "set", end.interface, "up", "mtu", "1420")
        for mine, its in zip(end.eids, other.eids, strict=True):
            route = f"{its}/{its.max_prefixlen}"
            end.run("ip", "route", "add", route, "dev", end.interface, "src", str(mine))

    def _close(self) -> None:
        for end in self.ends:
            if end.process is not None:
                end.process.terminate()
                end.process.wait(10)
