"""What a daemon tells Prometheus and probes on a unix socket."""

import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample


class Probe:
    """Asks one unix socket."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def get(self, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("localhost", timeout=5)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection.sock:
            connection.sock.settimeout(5)
            connection.sock.connect(str(self.path))
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()

    def ready(self) -> dict[str, Any]:
        """Return what it checked; empty where nobody answers."""
        try:
            status, body = self.get("/health/ready")
        except (OSError, http.client.HTTPException):
            return {}
        said = json.loads(body)
        assert (status == 200) == (said["status"] == "ok") == all(said["checks"].values())
        checks: dict[str, Any] = said["checks"]
        return checks

    def well(self) -> bool:
        checks = self.ready()
        return bool(checks) and all(checks.values())

    def metrics(self) -> dict[str, Metric]:
        """Return the families by their names, which a gauge may share with a counter."""
        return {family.name: family for family in self._families()}

    def samples(self) -> list[Sample]:
        return [sample for family in self._families() for sample in family.samples]

    def value(self, name: str, **labels: str) -> float:
        samples = self.samples()
        [value] = [one.value for one in samples if (one.name, one.labels) == (name, labels)]
        return value

    def _families(self) -> Iterator[Metric]:
        return iter(text_string_to_metric_families(self.get("/metrics")[1].decode()))
