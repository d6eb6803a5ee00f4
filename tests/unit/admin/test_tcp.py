"""The admin API over TCP: TLS, tokens, roles, limits; and nothing of it by default."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from support import fsm, tls
from support.operators import Cluster, found, until
from wgmap.addresses import Endpoint
from wgmap.errors import ConfigError, ConflictError
from wgmap.wg.keys import PublicKey
from wgmap_cluster.admin import connections, tokens
from wgmap_cluster.admin.guard import FAILURES, REQUESTS
from wgmap_cluster.admin.routes import Role
from wgmap_cluster.admin.server import AdminServer
from wgmap_cluster.config import AdminSection

A1 = {"name": "a1", "prefixes": ["10.66.1.1/32"], "control_key": str(PublicKey(fsm.key(1)))}


@dataclass
class Opened:
    """A server with an open port, and a token of each role."""

    cluster: Cluster
    url: str
    trusting: ssl.SSLContext
    tokens: dict[str, str]
    file: Path

    async def ask(self, method: str, path: str, token: str | None, **more: Any) -> tuple[int, Any]:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        connector = aiohttp.TCPConnector(ssl=self.trusting)
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.request(method, self.url + path, headers=headers, **more) as response,
        ):
            self.headers = response.headers
            return response.status, await response.json()


def section(folder: Path, files: tls.Files, port: int) -> AdminSection:
    return AdminSection(
        listen=Endpoint.parse(f"127.0.0.1:{port}"),
        certificate=files.certificate,
        key=files.key,
        tokens=folder / "tokens",
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def opening(folder: Path) -> AsyncIterator[Opened]:
    files, port = tls.make(folder), free_port()
    made = {}
    for role in Role:
        token, holder = tokens.make(role.name.lower(), role)
        tokens.add(folder / "tokens", holder)
        made[holder.name] = token
    cluster = await found(folder / "admin.sock")
    server = AdminServer(cluster.operations, cluster.socket, section(folder, files, port))
    await server.start()
    try:
        url = f"https://127.0.0.1:{port}"
        yield Opened(cluster, url, files.trusting(), made, folder / "tokens")
    finally:
        await server.stop()


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Opened]:
    async with opening(tmp_path) as made:
        yield made


async def test_roles(opened: Opened) -> None:
    asked: dict[tuple[str, str], tuple[str, Any]] = {
        ("GET", "/v1/status"): ("read", None),
        ("GET", "/v1/openapi.json"): ("read", None),
        ("POST", "/v1/peers"): ("operate", A1),
        ("PATCH", "/v1/instances/0"): ("admin", {"max_mappings": 7}),
        ("DELETE", "/v1/servers/ms9"): ("admin", None),
    }
    for (method, path), (least, body) in asked.items():
        for name, token in opened.tokens.items():
            status, answer = await opened.ask(method, path, token, json=body)
            let_in = Role[name.upper()] >= Role[least.upper()]
            assert (status != 403) == let_in, (method, path, name, answer)
            if not let_in:
                assert least in answer["detail"]


async def test_strangers_get_nothing(opened: Opened) -> None:
    good = opened.tokens["admin"]
    wrong = (None, "", "x", "admin.", good[:-1], good + "x", "nobody." + good, "é", "a" * 9000)
    for token in wrong[:8]:
        status, answer = await opened.ask("GET", "/v1/peers", token)
        assert (status, answer["title"]) == (401, "Unauthorized")
        assert opened.headers["WWW-Authenticate"].startswith("Bearer")
    assert (await opened.ask("GET", "/no/such/path", None))[0] == 401  # not even what exists
    assert (await opened.ask("GET", "/no/such/path", good))[0] == 404


async def test_the_audit_names_the_token(opened: Opened) -> None:
    assert (await opened.ask("POST", "/v1/peers", opened.tokens["operate"], json=A1))[0] == 201
    assert list(opened.cluster.machine.state.audit.values())[-1].operator == "token operate"


async def test_a_line_taken_out_shuts_its_token_out(opened: Opened) -> None:
    token = opened.tokens["read"]
    assert (await opened.ask("GET", "/v1/status", token))[0] == 200
    lines = opened.file.read_text().splitlines()
    opened.file.write_text("\n".join(line for line in lines if not line.startswith("read ")))
    assert (await opened.ask("GET", "/v1/status", token))[0] == 401
    opened.file.write_text("nonsense\n")  # nobody is let in on a guess
    assert (await opened.ask("GET", "/v1/status", opened.tokens["admin"]))[0] == 503


async def test_who_asks_too_often_is_told(opened: Opened) -> None:
    async def many(token: str | None, count: int) -> list[int]:
        asked = (opened.ask("GET", "/v1/servers", token) for _ in range(count))
        return [status for status, _ in await asyncio.gather(*asked)]

    guesses = await many("guess", FAILURES[1] + 5)
    assert set(guesses) == {401, 429}
    assert (await opened.ask("GET", "/v1/status", "guess"))[0] == 429
    assert opened.headers["Retry-After"]
    assert (await opened.ask("GET", "/v1/status", opened.tokens["read"]))[0] == 200
    connector = aiohttp.TCPConnector(ssl=opened.trusting)
    headers = {"Authorization": f"Bearer {opened.tokens['read']}"}
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
        statuses = set()
        for _ in range(3 * REQUESTS[1]):
            async with session.get(opened.url + "/v1/servers") as response:
                statuses.add(response.status)
            if 429 in statuses:
                break
    assert statuses == {200, 429}


async def test_no_plain_text_and_no_old_tls(opened: Opened) -> None:
    port = int(opened.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n")
    assert await asyncio.wait_for(_ended(reader), 5)
    writer.close()
    with pytest.raises(aiohttp.ClientConnectorCertificateError):
        async with aiohttp.ClientSession() as session, session.get(opened.url):
            pass
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLS"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.open_connection("127.0.0.1", port, ssl=old)
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_2
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=old)
    writer.close()


async def test_strangers_cannot_hold_connections(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = int(opened.url.rpartition(":")[2])

    async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", port, ssl=opened.trusting)

    monkeypatch.setattr(connections, "STRANGER_S", 0.2)
    reader, writer = await connect()
    writer.write(b"GET /v1/st")  # slowly
    assert await asyncio.wait_for(_ended(reader), 5)
    monkeypatch.setattr(connections, "MOST", 0)
    reader, _ = await connect()
    assert await asyncio.wait_for(_ended(reader), 5)


async def _ended(reader: asyncio.StreamReader) -> bool:
    try:
        return await reader.read() == b""
    except ConnectionError:
        return True


async def test_a_port_that_is_taken_and_files_that_are_not_there(tmp_path: Path) -> None:
    async with opening(tmp_path) as opened:
        port = int(opened.url.rpartition(":")[2])
        cluster = await found(tmp_path / "other.sock")
        files = tls.Files(tmp_path / "tls.crt", tmp_path / "tls.key")
        server = AdminServer(cluster.operations, cluster.socket, section(tmp_path, files, port))
        with pytest.raises(ConfigError, match=str(port)):
            await server.start()
        assert not cluster.socket.exists()  # nothing is left of it
        for bad in (tls.Files(tmp_path / "none", files.key), tls.Files(files.key, files.key)):
            server = AdminServer(cluster.operations, cluster.socket, section(tmp_path, bad, 1))
            with pytest.raises(ConfigError, match="certificate"):
                await server.start()


async def test_without_the_section_nothing_but_the_socket_listens(tmp_path: Path) -> None:
    cluster = await found(tmp_path / "admin.sock")
    server = AdminServer(cluster.operations, cluster.socket, AdminSection())
    before = _listening()
    await server.start()
    await until(cluster.socket.exists)
    assert _listening() == before
    await server.stop()
    with pytest.raises(ValueError, match="go together"):
        AdminSection(listen=Endpoint.parse("127.0.0.1:1"))


def _listening() -> set[str]:
    """Return this process' TCP sockets that listen, by their inode."""
    inodes = {
        line.split()[9]
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/self/net/{table}").read_text().splitlines()[1:]
        if line.split()[3] == "0A"
    }
    links = (str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink())
    own = {link[8:-1] for link in links if link.startswith("socket:[")}
    return inodes & own


def test_a_token_is_nowhere_but_on_the_terminal(tmp_path: Path) -> None:
    token, holder = tokens.make("ops", Role.OPERATE)
    path = tmp_path / "tokens"
    tokens.add(path, holder)
    assert path.stat().st_mode & 0o777 == 0o600
    assert token.partition(".")[2] not in path.read_text()
    assert tokens.TokenFile(path).check(token) == holder
    with pytest.raises(ConflictError, match="ops"):
        tokens.add(path, tokens.make("ops", Role.READ)[1])
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="open to others"):
        tokens.TokenFile(path)


@pytest.mark.parametrize("text", ["a read", "a king " + "0" * 64, "a read xyz", "a/b read 0"])
def test_a_bad_line_is_named_and_not_shown(text: str) -> None:
    with pytest.raises(ConfigError, match="line 2") as told:
        tokens.read(f"# tokens\n{text}\n", "tokens")
    assert text not in str(told.value)
    with pytest.raises(ConfigError):
        tokens.make("a b", Role.READ)
