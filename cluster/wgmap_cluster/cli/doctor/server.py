"""The server of a configuration: its files, interfaces, ports and certificate."""

import shutil
import socket
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from wgmap.lisp.messages import LISP_PORT
from wgmap_cluster.cli.doctor.finding import Finding, failed, fine, warned
from wgmap_cluster.config import ServerConfig
from wgmap_cluster.supervisor import keys

LITTLE = 1 << 30  # bytes that are free: a log and two snapshots of a large cluster
SOON = timedelta(days=14)


def look(config: ServerConfig) -> Iterator[Finding]:
    """Look at all of it; what cannot be seen by this user is said so."""
    yield _directory(config.server.state_dir)
    yield from _keys(config)
    yield _space(config.server.state_dir)
    yield from _interfaces(config)
    yield _port(config)
    if config.admin.certificate is not None:
        yield _certificate(config.admin.certificate)
    if config.admin.tokens is not None:
        yield _private(config.admin.tokens, "tokens")


def _directory(path: Path) -> Finding:
    if not path.is_dir():
        return failed("state", f"no directory {path}", f"wgmap-server keygen --dir {path}")
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        return failed("state", f"{path} is open to others ({mode:o})", f"chmod 700 {path}")
    return fine("state", str(path))


def _keys(config: ServerConfig) -> Iterator[Finding]:
    wanted = [] if config.control.unprotected else [keys.CONTROL_KEY]
    wanted += [] if config.mesh is None else [keys.MESH_KEY]
    for name in wanted:
        yield _private(config.server.state_dir / name, name)


def _private(path: Path, name: str) -> Finding:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        return failed(name, f"no {path}", "make it, or bring it back from a backup")
    except PermissionError:
        return warned(name, f"{path} cannot be seen by this user", "run this as root")
    if mode & 0o077:
        return failed(name, f"{path} is open to others ({mode:o})", f"chmod 600 {path}")
    return fine(name, f"{path} ({mode:o})")


def _space(path: Path) -> Finding:
    while not path.exists():
        path = path.parent
    free = shutil.disk_usage(path).free
    said = f"{free / 2**30:.1f} GiB free"
    if free < LITTLE:
        advice = "make room: a server whose disk is full stops, and does not lie"
        return failed("disk", said, advice)
    return fine("disk", said)


def _interfaces(config: ServerConfig) -> Iterator[Finding]:
    names = [] if config.control.unprotected else [(config.control.interface, config.control.port)]
    if config.mesh is not None:
        names.append((config.mesh.interface, config.mesh.port))
    for name, port in names:
        yield _interface(name, port)


def _interface(name: str, port: int) -> Finding:
    if name not in {each for _, each in socket.if_nameindex()}:
        advice = "the server makes it when it starts: systemctl status wgmap-server"
        return failed(name, "no such interface", advice)
    if port not in _udp_ports():
        return failed(name, f"nobody listens on UDP {port}", "systemctl restart wgmap-server")
    forwarding = Path(f"/proc/sys/net/ipv6/conf/{name}/forwarding")
    if forwarding.exists() and forwarding.read_text().strip() == "1":
        return warned(
            *(name, f"UDP {port}; IPv6 is forwarded from it"),
            "agents could reach each other through this server; its filter rules keep them from it",
        )
    return fine(name, f"UDP {port}")


def _port(config: ServerConfig) -> Finding:
    port = LISP_PORT if config.control.listen is None else config.control.listen.port
    if port not in _udp_ports():
        advice = "systemctl status wgmap-server; its log says why"
        return failed("map service", f"nobody listens on UDP {port}", advice)
    return fine("map service", f"UDP {port}")


def _udp_ports() -> set[int]:
    lines = [
        line
        for table in ("/proc/net/udp", "/proc/net/udp6")
        if Path(table).exists()
        for line in Path(table).read_text().splitlines()[1:]
    ]
    return {int(line.split()[1].rpartition(":")[2], 16) for line in lines}


def _certificate(path: Path) -> Finding:
    from cryptography import x509  # noqa: PLC0415  # slow to import, and rarely needed

    try:
        until = x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc
    except (OSError, ValueError) as error:
        return failed("certificate", f"{path}: {error}", "see admin.certificate")
    said = f"{path}, until {until:%Y-%m-%d}"
    if until < datetime.now(UTC):
        return failed("certificate", said, "renew it, then wgmap-server reload")
    if until < datetime.now(UTC) + SOON:
        return warned("certificate", said, "renew it, then wgmap-server reload")
    return fine("certificate", said)
