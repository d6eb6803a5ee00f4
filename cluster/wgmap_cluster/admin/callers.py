"""Who asks, and when, for the audit trail."""

import pwd
import socket
import struct
from datetime import UTC, datetime

from aiohttp import web

CALLER = "wgmap.caller"  # of a request whose token is known
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid


def operator(request: web.Request) -> str:
    """Name who asks, for the audit; "" once it hung up.

    Over TCP it is the token's name, else who the socket's credentials say.
    """
    caller: str | None = request.get(CALLER)
    if caller is not None:
        return caller
    connection = request.get_extra_info("socket")
    if connection is None:
        return ""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, _ = _CREDENTIALS.unpack(raw)
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def wall_time() -> str:
    """Return what the audit shows; nothing is decided by it."""
    return datetime.now(UTC).isoformat(timespec="seconds")
