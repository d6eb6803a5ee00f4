"""Temporary network namespaces for tests that carry the marker ``netns``.

    with netbed("wg") as bed:
        left, right = bed.namespace("l"), bed.namespace("r")
        bed.veth(left, right, ["192.0.2.1/24"], ["192.0.2.2/24"])
        left.run("ping", "-c1", "192.0.2.2")

A test bed has a random id, and every name that it hands out carries it. Its end, also after a
failure, kills what still runs inside (by pid), removes namespaces and WireGuard sockets, and fails
if anything with its id is left. Sockets under /var/run/wireguard are shared by all namespaces of a
machine: name WireGuard interfaces with ``bed.name``.
"""

import contextlib
import ctypes
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NAMESPACES = Path("/run/netns")
WIREGUARD_SOCKETS = Path("/var/run/wireguard")
CLONE_NEWNET = 0x40000000
PATIENCE = float(os.environ.get("WGMAP_TIME_SCALE", "1"))
NAME_BYTES = 15  # IFNAMSIZ - 1
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Namespace:
    """A network namespace that exists."""

    name: str

    def run(self, *argv: str, timeout_s: float = 10, check: bool = True) -> str:
        """Run a command inside and return its output; CalledProcessError where it fails."""
        done = subprocess.run(
            ["ip", "netns", "exec", self.name, *argv],
            capture_output=True,
            text=True,
            timeout=timeout_s * PATIENCE,
            check=False,
        )
        if check and done.returncode:
            msg = f"{self.name}: {' '.join(argv)}: exit {done.returncode}: {done.stderr.strip()}"
            raise AssertionError(msg)
        return done.stdout

    def ip(self, *argv: str) -> str:
        """Run ``ip`` on this namespace (faster than running it inside)."""
        return command("ip", "-n", self.name, *argv)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Put the calling thread inside; sockets opened meanwhile stay there afterwards.

        Other threads stay where they are (a thread started meanwhile is born inside), so let no
        other task of the loop run in between that means to be elsewhere.
        """
        own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            there = os.open(NAMESPACES / self.name, os.O_RDONLY | os.O_CLOEXEC)
            try:
                _setns(there)
            finally:
                os.close(there)
            try:
                yield
            finally:
                _setns(own)
        finally:
            os.close(own)

    def pids(self) -> set[int]:
        """Return the processes inside, zombies left out."""
        text = command("ip", "netns", "pids", self.name)
        return {int(pid) for pid in text.split() if alive(int(pid))}


class Netbed:
    """Makes namespaces and names, and removes them; see ``netbed``."""

    def __init__(self, prefix: str, stack: ExitStack) -> None:
        self.id = f"{prefix}{secrets.token_hex(3)}"
        self._stack = stack
        self._namespaces: list[Namespace] = []

    def name(self, label: str) -> str:
        """Return a machine-wide unique name of at most 15 characters (a label of 7 fits)."""
        name = f"{self.id}{label}"
        assert len(name) <= NAME_BYTES, f"{name!r} is too long for an interface"
        return name

    def namespace(self, label: str) -> Namespace:
        """Make a namespace with loopback up."""
        namespace = Namespace(self.name(label))
        command("ip", "netns", "add", namespace.name)
        self._stack.callback(_remove_namespace, namespace)
        self._namespaces.append(namespace)
        namespace.ip("link", "set", "lo", "up")
        # Otherwise deleting an address that was there first deletes those added after it.
        namespace.run("sysctl", "-qw", "net.ipv4.conf.all.promote_secondaries=1")
        namespace.run("sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0")
        return namespace

    def veth(
        self,
        left: Namespace,
        right: Namespace,
        left_addresses: Iterable[str] = (),
        right_addresses: Iterable[str] = (),
        label: str = "v",
    ) -> tuple[str, str]:
        """Join two namespaces; returns the names of the two ends, which are up.

        Addresses are ``ADDRESS/LENGTH``; IPv6 ones are usable at once (no duplicate detection).
        Checksum offload is off, so that a wire in user space can carry the packets.
        """
        ends = self.name(f"{label}0"), self.name(f"{label}1")
        command(
            *("ip", "link", "add", ends[0], "netns", left.name, "type", "veth"),
            *("peer", "name", ends[1], "netns", right.name),
        )
        for namespace, end, addresses in (
            (left, ends[0], left_addresses),
            (right, ends[1], right_addresses),
        ):
            namespace.run("ethtool", "-K", end, "tx", "off")
            for address in addresses:
                namespace.ip("addr", "add", address, "dev", end, *_nodad(address))
            namespace.ip("link", "set", end, "up")
        for namespace, end in ((left, ends[0]), (right, ends[1])):
            # The kernel looks at carriers once a second; before that IPv6 hears nothing.
            wait_until(lambda n=namespace, e=end: _ready(n, e), f"{end} ready")  # type: ignore[misc]
        return ends

    def popen(self, namespace: Namespace, *argv: str, **options: Any) -> subprocess.Popen[str]:
        """Start a command inside; it is killed at the end where it still runs."""
        process = subprocess.Popen(
            ["ip", "netns", "exec", namespace.name, *argv], text=True, **options
        )
        self._stack.callback(_end, process)
        return process

    def leaks(self) -> list[str]:
        """Name everything with this bed's id that exists."""
        found = [str(path) for path in _glob(NAMESPACES, f"*{self.id}*")]
        return found + [str(path) for path in _glob(WIREGUARD_SOCKETS, f"*{self.id}*")]

    def remove_sockets(self) -> None:
        """Remove the WireGuard sockets of this bed (killing wireguard-go leaves them behind)."""
        for path in _glob(WIREGUARD_SOCKETS, f"*{self.id}*"):
            path.unlink(missing_ok=True)


@contextmanager
def netbed(prefix: str) -> Iterator[Netbed]:
    """Make a test bed whose names start with ``prefix`` (two or three characters)."""
    with ExitStack() as stack:
        bed = Netbed(prefix, stack)
        stack.callback(_check_leaks, bed)
        stack.callback(bed.remove_sockets)
        yield bed


@contextmanager
def room_for_devices(count: int) -> Iterator[None]:
    """Have the machine carry so many more wireguard-go: each takes one of its inotify instances."""
    limit = Path("/proc/sys/fs/inotify/max_user_instances")
    before = int(limit.read_text())
    limit.write_text(str(before + count))
    try:
        yield
    finally:
        limit.write_text(str(before))


def wait_until(condition: Callable[[], bool], what: str, deadline_s: float = 10) -> None:
    """Wait on a condition, looking every 10 ms; AssertionError after the deadline.

    All deadlines here are for a machine; an emulated one sets WGMAP_TIME_SCALE (a factor).
    """
    end = time.monotonic() + deadline_s * PATIENCE
    while not condition():
        assert time.monotonic() < end, f"not within {deadline_s} s: {what}"
        time.sleep(0.01)


def alive(pid: int) -> bool:
    """Tell whether a process runs; a zombie does not (orphans stay zombies for seconds here)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    state, *rest = stat.rpartition(")")[2].split()
    threads = int(rest[16])  # num_threads of proc(5): a killed leader waits for its threads
    return state not in {"Z", "X"} or threads > 1


def command(*argv: str, timeout_s: float = 10) -> str:
    """Run a command on this machine and return its output; AssertionError where it fails."""
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=timeout_s * PATIENCE, check=False
    )
    assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr.strip()}"
    return done.stdout


def _remove_namespace(namespace: Namespace) -> None:
    def emptied() -> bool:
        left = namespace.pids()
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not left

    try:
        wait_until(emptied, f"an empty namespace {namespace.name}")
    finally:
        command("ip", "netns", "del", namespace.name)


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.kill()
    process.wait(timeout=10)
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def _check_leaks(bed: Netbed) -> None:
    leaks = bed.leaks()
    assert not leaks, f"left behind: {leaks}"


def _setns(descriptor: int) -> None:
    if _libc.setns(descriptor, CLONE_NEWNET):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), "setns")


def _ready(namespace: Namespace, end: str) -> bool:
    text = namespace.ip("-6", "addr", "show", "dev", end, "scope", "link")
    return "fe80:" in text and "tentative" not in text


def _nodad(address: str) -> tuple[str, ...]:
    return ("nodad",) if ":" in address else ()


def _glob(folder: Path, pattern: str) -> list[Path]:
    return sorted(folder.glob(pattern)) if folder.is_dir() else []
