"""What systemd is told (sd_notify); nothing happens where no one listens."""

import os
import socket

LONGEST_S = 10.0


def notify(*states: str) -> None:
    """Send states such as ``READY=1`` to the service manager that NOTIFY_SOCKET names."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    name = "\0" + address[1:] if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.setblocking(False)
        try:
            sender.sendto("\n".join(states).encode(), name)
        except OSError:
            return  # a manager that went away must not stop a daemon


def watchdog_interval_s() -> float:
    """Seconds between two WATCHDOG=1: a third of what the manager allows, at most 10."""
    watchdog_us = os.environ.get("WATCHDOG_USEC", "")
    return min(LONGEST_S, int(watchdog_us) / 3e6) if watchdog_us.isdigit() else LONGEST_S
