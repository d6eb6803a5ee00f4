"""The page for Prometheus: what is on it, and how it is served."""

import asyncio
import json
from collections.abc import Iterable
from pathlib import Path

import pytest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from pydantic import TypeAdapter, ValidationError

from wgmap.addresses import Endpoint
from wgmap.config import ListenField
from wgmap.errors import ConfigError, ConflictError
from wgmap.metrics.families import FINE_S, Counted, Histogram, counted, gauge, render, unflat
from wgmap.metrics.listener import MAX_HEAD, Health, MetricsServer

COUNTERS = {"peer.kicked": 3, "now.flows": 2, "run.inject.EINVAL": 1, "new.one": 4}
CATALOGUE = (
    Counted("peer.kicked", "Kicked."),
    Counted("never.counted", "Never."),
    Counted("now.flows", "Flows.", size=True),
    Counted("run.inject.*", "Not injected.", "error"),
)
WELL = Health({"registered": True})


def parsed(page: bytes) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(page.decode())}


def test_names_and_kinds_follow_the_conventions() -> None:
    families = parsed(render(counted("wgmap_agent", CATALOGUE, COUNTERS)))
    kinds = {name: family.type for name, family in families.items()}
    assert kinds == {
        "wgmap_agent_peer_kicked": "counter",
        "wgmap_agent_flows": "gauge",
        "wgmap_agent_run_inject": "counter",
        "wgmap_agent_never_counted": "counter",
        "wgmap_agent_new_one": "counter",  # better undescribed than hidden
    }
    [injected] = families["wgmap_agent_run_inject"].samples
    assert (injected.labels, injected.value) == ({"error": "EINVAL"}, 1)
    assert families["wgmap_agent_never_counted"].samples[0].value == 0
    [sample] = families["wgmap_agent_peer_kicked"].samples
    assert (sample.name, sample.value) == ("wgmap_agent_peer_kicked_total", 3)
    assert all(family.documentation for family in families.values())


def test_labels_and_unknown_values() -> None:
    page = render([gauge("wgmap_rtt_seconds", "Round trip.", {'a"\\\n': 0.5, "b": None}, "server")])
    [sample] = parsed(page)["wgmap_rtt_seconds"].samples
    assert sample.labels == {"server": 'a"\\\n'}
    assert sample.value == 0.5


def test_a_histogram_adds_up() -> None:
    histogram = Histogram((0.1, 1.0))
    for value in (0.05, 0.1, 0.5, 7.0):
        histogram.observe(value)
    samples = parsed(render([histogram.family("wgmap_took_seconds", "It took.")]))[
        "wgmap_took_seconds"
    ].samples
    buckets = {s.labels["le"]: s.value for s in samples if s.name.endswith("_bucket")}
    assert buckets == {"0.1": 2, "1.0": 3, "+Inf": 4}
    values = {s.name: s.value for s in samples if not s.labels}
    assert values["wgmap_took_seconds_count"] == 4
    assert values["wgmap_took_seconds_sum"] == pytest.approx(7.65)


def test_a_histogram_travels_as_numbers() -> None:
    histogram = Histogram(FINE_S)
    assert histogram.flat("sync") == {}
    for value in (0.00005, 0.003, 0.003, 4.0):
        histogram.observe(value)
    flat = {"syncs": 4, **histogram.flat("sync")}
    there = unflat("wgmap_sync_seconds", "Sync.", "sync", flat)
    assert render([there]) == render([histogram.family("wgmap_sync_seconds", "Sync.")])
    assert unflat("wgmap_none_seconds", "None.", "none", flat).samples[-1].value == 0
    assert [family.name for family in counted("x", (Counted("syncs", "S."),), flat)] == ["x_syncs"]


def test_where_to_listen() -> None:
    adapter: TypeAdapter[object] = TypeAdapter(ListenField)
    assert adapter.validate_python("/run/m.sock") == Path("/run/m.sock")
    assert adapter.validate_python("[::1]:9100") == Endpoint.parse("[::1]:9100")
    for bad in ("relative.sock", "9100", 9100, "localhost:9100"):
        with pytest.raises(ValidationError):
            adapter.validate_python(bad)


def page() -> Iterable[Metric]:
    return counted("wgmap_agent", CATALOGUE, COUNTERS)


async def ask(path: Path, request: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(str(path))
    try:
        writer.write(request)
        async with asyncio.timeout(5):
            return await reader.read()
    finally:
        writer.close()


async def test_it_is_served_on_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "m.sock"
    server = MetricsServer(path, page, lambda: WELL)
    await server.start()
    try:
        assert path.stat().st_mode & 0o777 == 0o660
        answer = await ask(path, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert f"Content-Length: {len(body)}".encode() in head
        assert "wgmap_agent_flows" in parsed(body)
        assert (await ask(path, b"GET / HTTP/1.0\r\n\r\n")).startswith(b"HTTP/1.1 404")
        assert (await ask(path, b"POST /metrics HTTP/1.0\r\n\r\n")).startswith(b"HTTP/1.1 405")
        assert await ask(path, b"x" * (MAX_HEAD + 10)) == b""
        with pytest.raises(ConflictError):
            await MetricsServer(path, page, lambda: WELL).start()
    finally:
        await server.stop()
    assert not path.exists()


async def test_health_says_what_is_wrong(tmp_path: Path) -> None:
    checks = {"registered": True, "map_server": True}
    path = tmp_path / "m.sock"
    server = MetricsServer(path, page, lambda: Health(checks))
    await server.start()
    try:
        for name, bad in (("live", False), ("ready", False), ("ready", True), ("live", True)):
            checks["map_server"] = not bad
            answer = await ask(path, f"GET /health/{name} HTTP/1.0\r\n\r\n".encode())
            head, _, body = answer.partition(b"\r\n\r\n")
            fails = bad and name == "ready"
            assert head.split()[1] == (b"503" if fails else b"200")
            said = json.loads(body)
            assert said["status"] == ("failing" if fails else "ok")
            assert (False in said["checks"].values()) is fails
    finally:
        await server.stop()


async def test_it_is_served_on_an_address_and_a_taken_one_is_told() -> None:
    busy = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = busy.sockets[0].getsockname()[1]
    taken = Endpoint.parse(f"127.0.0.1:{port}")
    with pytest.raises(ConfigError, match=str(port)):
        await MetricsServer(taken, page, lambda: WELL).start()
    busy.close()
    await busy.wait_closed()
    server = MetricsServer(taken, page, lambda: WELL)
    await server.start()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
        async with asyncio.timeout(5):
            assert b"wgmap_agent_peer_kicked_total 3.0" in await reader.read()
        writer.close()
    finally:
        await server.stop()
