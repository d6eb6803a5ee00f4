"""The error of everything that talks to the kernel about links, addresses, routes, sockets."""

import errno
import os

from wgmap.errors import WgmapError


class NetworkError(WgmapError):
    """The kernel refused; ``errno`` is kept."""

    def __init__(self, what: str, code: int) -> None:
        self.errno = code
        name = errno.errorcode.get(code, str(code))
        super().__init__(f"{what}: {os.strerror(code)} ({name})")
