"""When the service manager is told what."""

from wgmap.systemd import notify

_ALIVE_US = 30_000_000  # a start that waits for a map server asks for this long again


class Readiness:
    """Tells the service manager once that the agent is ready, and that it is alive."""

    def __init__(self) -> None:
        """Not ready yet."""
        self._ready = False

    def ready(self, status: str) -> None:
        """Tell that the start is over; only the first call says so."""
        first = () if self._ready else ("READY=1",)
        notify(*first, f"STATUS={status}")
        self._ready = True

    def alive(self) -> None:
        """Feed the watchdog; before ``ready``, ask for more time to start."""
        waiting = () if self._ready else (f"EXTEND_TIMEOUT_USEC={_ALIVE_US}",)
        notify("WATCHDOG=1", *waiting)

    def stopping(self) -> None:
        """Tell that the agent stops; its tunnels stay."""
        notify("STOPPING=1")
