"""The first reply as iputils' ping sees it, inside a namespace."""

import re
import subprocess

_REPLY = re.compile(r"^64 bytes from .* time=([\d.]+) ms", re.MULTILINE)


def first_reply_ms(netns: str, destination: str, wait_s: float = 5.0) -> float | None:
    """Send one echo request and return its round trip in ms; None when no reply came in time.

    One packet only: a tunnel that loses the packet it was made for shows as None.
    """
    command = ["ip", "netns", "exec", netns, "ping", "-n", "-c", "1", "-W", str(wait_s)]
    done = subprocess.run([*command, destination], capture_output=True, text=True, check=False)
    reply = _REPLY.search(done.stdout)
    return float(reply[1]) if reply else None
