"""What systemd is told (sd_notify); nothing happens where no one listens."""

import os
import socket

_ALIVE_US = 30_000_000  # a start that waits for a map server asks for this long again


class Readiness:
    """Tells the service manager once that the agent is ready, and that it is alive."""

    def __init__(self, address: str | None = None) -> None:
        """Take the socket from NOTIFY_SOCKET unless ``address`` names it."""
        self._address = address if address is not None else os.environ.get("NOTIFY_SOCKET", "")
        self._ready = False

    @classmethod
    def interval_s(cls) -> float:
        """Seconds between two ``alive``: a third of the watchdog's, at most 10."""
        watchdog_us = os.environ.get("WATCHDOG_USEC", "")
        return min(10.0, int(watchdog_us) / 3e6) if watchdog_us.isdigit() else 10.0

    def ready(self, status: str) -> None:
        """Tell that the start is over; only the first call says so."""
        self._send(f"READY=1\nSTATUS={status}" if not self._ready else f"STATUS={status}")
        self._ready = True

    def alive(self) -> None:
        """Feed the watchdog; before ``ready``, ask for more time to start."""
        waiting = "" if self._ready else f"\nEXTEND_TIMEOUT_USEC={_ALIVE_US}"
        self._send("WATCHDOG=1" + waiting)

    def stopping(self) -> None:
        """Tell that the agent stops; its tunnels stay."""
        self._send("STOPPING=1")

    def _send(self, text: str) -> None:
        if not self._address:
            return
        name = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.setblocking(False)
            try:
                sender.sendto(text.encode(), name)
            except OSError:
                return  # a manager that went away must not stop an agent
