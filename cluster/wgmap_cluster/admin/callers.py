"""Who asks, and when, for the audit trail."""

import pwd
import socket
import struct
from datetime import UTC, datetime

from aiohttp import web

_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid


def operator(request: web.Request) -> str:
    """Name who asks, for the audit, from the socket's credentials; "" once it hung up."""
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
