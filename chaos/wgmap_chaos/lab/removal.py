"""Taking a lab away: everything that carries its id, whatever state it is in.

It needs no record of what was made, so it works after ``lab up`` was killed at any moment.
"""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from wgmap_chaos.lab import shell
from wgmap_chaos.lab.errors import LabError
from wgmap_chaos.lab.topology import Paths, interface_prefix, netns_prefix
from wgmap_chaos.lab.waiting import Deadline

NETNS_ROOT = Path("/run/netns")
UAPI_ROOT = Path("/run/wireguard")
GRACE_S = 5.0
KILL_S = 20.0


class NamespaceId(NamedTuple):
    """What tells one namespace from another; unique as long as somebody holds it open."""

    device: int
    inode: int


def remove(lab: str, paths: Paths) -> None:
    """End the lab's processes and delete its namespaces, interfaces, sockets and state.

    Logs stay. Nothing to remove is no error. Raises LabError when something resists.
    """
    names = namespaces(lab)
    with _held(names) as ids:
        end_processes(ids)
        for name in names:
            delete_namespace(name)
        # A daemon may have entered by the name just before it went.
        end_processes(ids)
    _delete_links(lab)
    for socket in sockets(lab):
        socket.unlink(missing_ok=True)
    paths.inventory.unlink(missing_ok=True)
    for path in paths.perishable:
        if path.exists():
            shutil.rmtree(path)


def namespaces(lab: str) -> list[str]:
    """Names of the lab's namespaces that exist."""
    if not NETNS_ROOT.is_dir():
        return []
    prefix = netns_prefix(lab)
    return sorted(path.name for path in NETNS_ROOT.iterdir() if path.name.startswith(prefix))


def links(lab: str) -> list[str]:
    """Names of the lab's interfaces in our own namespace: there should be none."""
    prefix = interface_prefix(lab)
    return sorted(path.name for path in Path("/sys/class/net").glob(f"{prefix}*"))


def sockets(lab: str) -> list[Path]:
    """Sockets of userspace WireGuard that belong to the lab."""
    return sorted(UAPI_ROOT.glob(f"{interface_prefix(lab)}*.sock"))


def namespace_id(path: Path) -> NamespaceId:
    """Return the identity of the namespace behind a file; raises OSError."""
    status = path.stat()
    return NamespaceId(status.st_dev, status.st_ino)


def netns_id(netns: str) -> NamespaceId:
    """Return the identity of a named namespace; raises OSError."""
    return namespace_id(NETNS_ROOT / netns)


def processes(ids: set[NamespaceId]) -> list[int]:
    """Pids of the living processes in these namespaces, other than our own; zombies are dead."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with suppress(OSError):
            if namespace_id(entry / "ns/net") in ids and alive(int(entry.name)):
                found.append(int(entry.name))
    return found


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in {"Z", "X"}


def end_processes(ids: set[NamespaceId]) -> None:
    """Ask every process in these namespaces to end, then make it; raises LabError.

    The namespaces must be held, or another lab could have got their numbers meanwhile.
    """
    if not ids:
        return
    grace = Deadline(GRACE_S, may_shrink=False)
    deadline = Deadline(KILL_S, may_shrink=False)
    asked: set[int] = set()

    def gone() -> bool:
        remaining = processes(ids)
        for pid in remaining:
            if not grace.remaining:
                send_signal(pid, ids, signal.SIGKILL)
            elif pid not in asked:
                asked.add(pid)
                send_signal(pid, ids, signal.SIGTERM)
        return not remaining

    deadline.wait(gone, lambda: f"the end of the processes {processes(ids)}")


def send_signal(pid: int, ids: set[NamespaceId], number: signal.Signals) -> None:
    """Send a signal to the process that has this pid now, if it is still one of ours."""
    with suppress(ProcessLookupError, FileNotFoundError):
        descriptor = os.pidfd_open(pid)
        try:
            if namespace_id(Path(f"/proc/{pid}/ns/net")) in ids:
                signal.pidfd_send_signal(descriptor, number)
        finally:
            os.close(descriptor)


@contextmanager
def _held(names: list[str]) -> Iterator[set[NamespaceId]]:
    """Keep namespaces from being freed, and their numbers from being used anew."""
    with ExitStack() as stack:
        held = [stack.enter_context((NETNS_ROOT / name).open("rb")) for name in names]
        statuses = [os.fstat(file.fileno()) for file in held]
        yield {NamespaceId(status.st_dev, status.st_ino) for status in statuses}


def delete_namespace(name: str) -> None:
    """Delete the name of a namespace; a half-made one, too. Raises LabError."""
    subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)
    try:
        (NETNS_ROOT / name).unlink(missing_ok=True)
    except OSError as error:
        raise LabError(f"namespace {name}: {error.strerror}") from error


def _delete_links(lab: str) -> None:
    for name in links(lab):
        with suppress(LabError):  # the other end of a pair went with the first
            shell.run(["ip", "link", "delete", "dev", name])
    if left := links(lab):
        raise LabError(f"interfaces that cannot be deleted: {', '.join(left)}")
