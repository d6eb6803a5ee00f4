"""Numbers for Prometheus: one page in its text format, on a unix socket or an address.

Names follow its conventions: ``wgmap_agent_..._total`` counts, base units (seconds, bytes), no
label that grows with the number of peers. What is counted is counted elsewhere; here it is shown.
"""

import asyncio
import bisect
import contextlib
import re
import socket
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from wgmap import unixsocket
from wgmap.config import Listen
from wgmap.errors import ConfigError
from wgmap.log import Log

MAX_HEAD = 8192  # bytes of a request
MAX_CLIENTS = 8  # more are closed at once
REQUEST_S = 5.0  # a client that is slower than this is closed
SOCKET_MODE = 0o660
BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
GAUGE = "now."  # what begins with it is a size, all else is counted
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

log = Log("metrics")


class Histogram:
    """How often something took how long (seconds)."""

    def __init__(self, buckets: tuple[float, ...] = BUCKETS_S) -> None:
        self._bounds = buckets
        self._counts = [0] * (len(buckets) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count one."""
        self._counts[bisect.bisect_left(self._bounds, seconds)] += 1
        self._sum += seconds

    def family(self, name: str, text: str) -> Metric:
        """Return it as it is shown."""
        total, buckets = 0, []
        for bound, count in zip((*self._bounds, float("inf")), self._counts, strict=True):
            total += count
            buckets.append(("+Inf" if bound == float("inf") else str(bound), total))
        return HistogramMetricFamily(name, text, buckets=buckets, sum_value=self._sum)


def counted(prefix: str, counters: Mapping[str, int]) -> Iterable[Metric]:
    """Show counters by their names: ``peer.kicked`` is PREFIX_peer_kicked_total."""
    for name, value in counters.items():
        if name.startswith(GAUGE):
            short = _name(prefix, name.removeprefix(GAUGE))
            yield GaugeMetricFamily(short, f"{name}, as it is now.", value=value)
        else:
            yield CounterMetricFamily(_name(prefix, name), f"How often: {name}.", value=value)


def gauge(
    name: str, text: str, values: Mapping[str, float | None] | float, label: str = ""
) -> Metric:
    """Show one value, or one for each value of a label; unknown ones are left out."""
    if not isinstance(values, Mapping):
        return GaugeMetricFamily(name, text, value=values)
    family = GaugeMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        if value is not None:
            family.add_metric([key], value)
    return family


def render(families: Iterable[Metric]) -> bytes:
    """Write a page in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(families))
    return generate_latest(registry)


class MetricsServer:
    """Serves ``GET /metrics`` until it is closed."""

    def __init__(self, listen: Listen, page: Callable[[], Iterable[Metric]]) -> None:
        """``page``: called for each request."""
        self._listen = listen
        self._page = page
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen; raises ConfigError, ConflictError."""
        listener = _open(self._listen)
        options: dict[str, Any] = {"sock": listener, "limit": MAX_HEAD}
        if isinstance(self._listen, Path):
            self._server = await asyncio.start_unix_server(self._accept, **options)
        else:
            self._server = await asyncio.start_server(self._accept, **options)
        log.info("metrics", at=self._listen)

    async def close(self) -> None:
        """Stop serving; a unix socket's file goes as well."""
        if self._server is None:
            return
        self._server.close()
        for task in tuple(self._clients):
            task.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        self._server = None
        if isinstance(self._listen, Path):
            self._listen.unlink(missing_ok=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._clients) >= MAX_CLIENTS:
            writer.close()
            return
        task = asyncio.current_task()
        assert task is not None  # asyncio runs this as a task
        self._clients.add(task)
        try:
            async with asyncio.timeout(REQUEST_S):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(self._answer(head))
                await writer.drain()
        except (TimeoutError, ConnectionError, asyncio.IncompleteReadError, ValueError):
            log.debug("client dropped")
        except asyncio.LimitOverrunError:
            log.debug("client dropped", reason="its request is too long")
        finally:
            self._clients.discard(task)
            with contextlib.suppress(ConnectionError):
                writer.close()

    def _answer(self, head: bytes) -> bytes:
        method, _, rest = head.partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0]
        if method != b"GET":
            return _response("405 Method Not Allowed", b"only GET\n")
        if path != b"/metrics":
            return _response("404 Not Found", b"see /metrics\n")
        return _response("200 OK", render(self._page()))


class _Families(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _response(status: str, body: bytes) -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {CONTENT_TYPE}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


def _open(listen: Listen) -> socket.socket:
    if isinstance(listen, Path):
        return unixsocket.listen(listen, SOCKET_MODE)
    family = socket.AF_INET if listen.address.version == 4 else socket.AF_INET6
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((str(listen.address), listen.port))
    except OSError as error:
        listener.close()
        msg = f"metrics at {listen}: {error.strerror}"
        raise ConfigError(msg) from error
    return listener


def _name(prefix: str, name: str) -> str:
    return f"{prefix}_{re.sub('[^a-z0-9]+', '_', name.lower())}"
