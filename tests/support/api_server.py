"""A whole server whose admin API is open over TLS, with a token for everything."""

import socket
import ssl
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support import tls
from support.supervised import Server, wait_for
from wgmap_cluster.admin import tokens
from wgmap_cluster.admin.routes import Role


@dataclass
class Api:
    """Where it listens, and a token that may do everything."""

    server: Server
    url: str
    token: str
    files: tls.Files

    def description(self) -> bytes:
        request = urllib.request.Request(self.url + "/v1/openapi.json")
        request.add_header("Authorization", f"Bearer {self.token}")
        context = ssl.create_default_context(cafile=str(self.files.certificate))
        with urllib.request.urlopen(request, context=context, timeout=10) as answer:
            data: bytes = answer.read()
            return data


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def serving(folder: Path, role: Role = Role.ADMIN) -> Iterator[Api]:
    """Start it, and end it in any case."""
    files, port = tls.make(folder), _free_port()
    token, holder = tokens.make("tester", role)
    tokens.add(folder / "tokens", holder)
    section = (
        f'[admin]\nlisten = "127.0.0.1:{port}"\ntokens = "{folder}/tokens"\n'
        f'certificate = "{files.certificate}"\nkey = "{files.key}"\n'
    )
    server = Server(folder, replica="wgmap_cluster.replica", sections=section)
    try:
        server.ready()  # it answers agents; operators a moment earlier or later
        wait_for(lambda: _listens(port), "the admin API listens")
        yield Api(server, f"https://127.0.0.1:{port}", token, files)
    finally:
        server.close()
