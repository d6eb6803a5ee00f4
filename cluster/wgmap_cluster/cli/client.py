"""HTTP over the admin socket, with the standard library alone: a command line must start fast."""

import http.client
import json
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any

from wgmap.errors import (
    ChangedError,
    ConfigError,
    ConflictError,
    NotFoundError,
    UnavailableError,
    WgmapError,
)
from wgmap.progress import Progress

TIMEOUT_S = 30.0
REVOKE_TIMEOUT_S = 150.0  # twice the largest staleness bound, and some
PIECE = 64 * 1024
MAX_ANSWER = 256 * 1024 * 1024  # bytes; a hundred thousand peers are some 30 MB
_ERRORS: dict[int, type[WgmapError]] = {
    HTTPStatus.BAD_REQUEST: ConfigError,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: ConfigError,
    HTTPStatus.NOT_FOUND: NotFoundError,
    HTTPStatus.CONFLICT: ConflictError,
    HTTPStatus.PRECONDITION_FAILED: ChangedError,
    HTTPStatus.SERVICE_UNAVAILABLE: UnavailableError,
}


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Client:
    """Asks one server."""

    def __init__(self, path: Path, progress: Progress | None = None) -> None:
        """``path``: its admin socket; ``progress``: where to say what is waited for."""
        self.path = path
        self.progress = progress or Progress("wgmap")
        self.progress.say(f"waiting for the server at {path}")

    def get(self, path: str, timeout_s: float = TIMEOUT_S) -> Any:
        """Return the JSON value at ``path``; raises WgmapError."""
        return self._request("GET", path, None, timeout_s)

    def post(
        self,
        path: str,
        body: dict[str, Any] | None = None,
        timeout_s: float = TIMEOUT_S,
        revision: int | None = None,
    ) -> Any:
        """Send a JSON body and return the JSON answer, see patch(); raises WgmapError."""
        data = json.dumps(body or {}).encode()
        return self._request("POST", path, data, timeout_s, _if_match(revision))

    def patch(self, path: str, body: dict[str, Any], revision: int | None = None) -> Any:
        """Change what is at ``path``, with ``revision`` only that one; raises WgmapError."""
        data = json.dumps(body).encode()
        return self._request("PATCH", path, data, TIMEOUT_S, _if_match(revision))

    def delete(self, path: str, timeout_s: float = TIMEOUT_S) -> Any:
        """Remove what is at ``path``; raises WgmapError."""
        return self._request("DELETE", path, None, timeout_s)

    def send(self, path: str, pieces: Iterable[bytes], timeout_s: float) -> Any:
        """Send a body in pieces and return the JSON answer; raises WgmapError."""
        with self._asked("POST", path, pieces, timeout_s, {}) as response:
            return _answer(response.status, response.read(MAX_ANSWER))

    def receive(self, path: str, timeout_s: float = TIMEOUT_S) -> Iterator[bytes]:
        """Yield what is at ``path`` as it comes; raises WgmapError."""
        with self._asked("GET", path, None, timeout_s, {}) as response:
            if response.status >= HTTPStatus.BAD_REQUEST:
                _answer(response.status, response.read(MAX_ANSWER))
            while piece := response.read1(PIECE):
                yield piece

    def _request(
        self,
        method: str,
        path: str,
        body: bytes | None,
        timeout_s: float,
        headers: dict[str, str] | None = None,
    ) -> Any:
        kind = {"Content-Type": "application/json"} if body is not None else {}
        with self._asked(method, path, body, timeout_s, {**kind, **(headers or {})}) as response:
            return _answer(response.status, response.read(MAX_ANSWER))

    @contextmanager
    def _asked(
        self,
        method: str,
        path: str,
        body: bytes | Iterable[bytes] | None,
        timeout_s: float,
        headers: dict[str, str],
    ) -> Iterator[http.client.HTTPResponse]:
        connection = _Connection(self.path, timeout_s)
        try:
            yield _ask(connection, method, path, body, headers)
        except TimeoutError as error:
            raise UnavailableError(f"{self.path}: no answer in {timeout_s:.0f} s") from error
        except OSError as error:
            said = f"{self.path}: {error.strerror or error}{_hint(error)}"
            raise UnavailableError(said) from error
        except http.client.HTTPException as error:
            raise UnavailableError(f"{self.path}: answer broken off ({error!r})") from error
        finally:
            connection.close()


def _hint(error: OSError) -> str:
    """Say what is likely to be wrong where the socket cannot be opened."""
    match error:
        case FileNotFoundError() | ConnectionRefusedError():
            return " (no map server runs here? --socket PATH names another one's)"
        case PermissionError():
            return " (only its owner may open it, as a rule root)"
        case _:
            return ""


def _if_match(revision: int | None) -> dict[str, str]:
    return {} if revision is None else {"If-Match": f'"{revision}"'}


def _answer(status: int, data: bytes) -> Any:
    try:
        value = json.loads(data)
    except ValueError as error:
        raise UnavailableError(f"the server answered {status} without JSON") from error
    if status < HTTPStatus.BAD_REQUEST:
        return value
    detail = value.get("detail") if isinstance(value, dict) else None
    refused = _ERRORS.get(status, WgmapError)(str(detail or f"the server answered {status}"))
    position = value.get("position") if isinstance(value, dict) else None
    refused.position = position if isinstance(position, int) else None
    raise refused


def _ask(
    connection: _Connection,
    method: str,
    path: str,
    body: bytes | Iterable[bytes] | None,
    headers: dict[str, str],
) -> http.client.HTTPResponse:
    try:
        connection.request(method, path, body, headers)
    except (BrokenPipeError, ConnectionResetError):
        # The server may have refused before it had read all, and said why.
        with suppress(OSError, http.client.HTTPException):
            return connection.getresponse()
        raise
    return connection.getresponse()
