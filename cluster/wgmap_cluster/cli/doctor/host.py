"""The machine: its clock, kernel and WireGuard."""

import ctypes
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from wgmap import __version__
from wgmap_cluster.cli.doctor.finding import Finding, failed, fine, warned

OLDEST = (3, 11)
BUILT = datetime(2026, 1, 1, tzinfo=UTC)  # no clock that is right says less
STA_UNSYNC = 0x40  # linux/timex.h


class _Timex(ctypes.Structure):
    """``struct timex`` (adjtimex(2)); of what follows only the size matters."""

    _fields_ = [
        ("modes", ctypes.c_uint),
        *((name, ctypes.c_long) for name in ("offset", "freq", "maxerror", "esterror")),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 256),
    ]


def look() -> Iterator[Finding]:
    """Look at all of it."""
    yield _versions()
    yield _clock()
    yield _wireguard()
    yield _tun()


def _versions() -> Finding:
    said = f"wgmap {__version__}, Python {platform.python_version()}, Linux {platform.release()}"
    if sys.version_info[:2] < OLDEST:
        return failed("versions", said, f"Python {OLDEST[0]}.{OLDEST[1]} or newer")
    return fine("versions", said)


def _clock() -> Finding:
    now = datetime.now(UTC)
    said = f"{now:%Y-%m-%d %H:%M:%S} UTC"
    if now < BUILT:
        advice = "set it: WireGuard refuses handshakes from a clock that went back"
        return failed("clock", said, advice)
    timex = _Timex()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.adjtimex(ctypes.byref(timex)) < 0 or timex.status & STA_UNSYNC:
        advice = "run chrony or systemd-timesyncd; certificates and logs want the time"
        return warned("clock", f"{said}, not synchronized", advice)
    return fine("clock", f"{said}, synchronized")


def _wireguard() -> Finding:
    if Path("/sys/module/wireguard").exists():
        return fine("WireGuard", "in the kernel")
    program = shutil.which("wireguard-go")
    if program is not None:
        advice = "the kernel's is faster: modprobe wireguard, where it has it"
        return warned("WireGuard", f"in user space, {program}", advice)
    return failed("WireGuard", "none", "modprobe wireguard, or install wireguard-go")


def _tun() -> Finding:
    path = Path("/dev/net/tun")
    if not path.exists():
        return warned("TUN", f"no {path}", "agents and wireguard-go need it: modprobe tun")
    if not os.access(path, os.R_OK | os.W_OK):
        return warned("TUN", f"{path} cannot be opened by this user", "run this as root")
    return fine("TUN", str(path))
