"""The admin API of a real server, asked by schemathesis for all that its description allows."""

import json
import os
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support import tls
from support.supervised import Server
from wgmap_cluster.admin import tokens
from wgmap_cluster.admin.routes import Role

ST = Path(sys.executable).with_name("schemathesis")
EXAMPLES = 1000 if os.environ.get("WGMAP_LONG") else 20  # of each operation
# Without a token all that is not known counts against the source, so the answer becomes 429: the
# tokens have tests of their own. /v1/peers/import is also the path of a peer with that name. What a
# schema cannot say (a prefix has no host bits, a name is taken) is refused as it must be.
NOT_CHECKED = (
    *("ignored_auth", "missing_required_header", "positive_data_acceptance"),
    "unsupported_method",
)
# These last as long as one listens, or change who the servers are: they have tests of their own.
NOT_ASKED = ("/v1/events", "/v1/restore", "/v1/leader", "/v1/servers", "/v1/servers/{name}")
MOST_S = 1200 if os.environ.get("WGMAP_LONG") else 25


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


@pytest.fixture
def api(tmp_path: Path, free_port: int) -> Iterator[Api]:
    files = tls.make(tmp_path)
    token, holder = tokens.make("tester", Role.ADMIN)
    tokens.add(tmp_path / "tokens", holder)
    section = (
        f'[admin]\nlisten = "127.0.0.1:{free_port}"\ntokens = "{tmp_path}/tokens"\n'
        f'certificate = "{files.certificate}"\nkey = "{files.key}"\n'
    )
    server = Server(tmp_path, replica="wgmap_cluster.replica", sections=section)
    try:
        server.ready()
        yield Api(server, f"https://127.0.0.1:{free_port}", token, files)
    finally:
        server.close()


@pytest.mark.slow
@pytest.mark.timeout(1800 if os.environ.get("WGMAP_LONG") else 180)
def test_whatever_is_asked_the_answer_is_as_described(api: Api, tmp_path: Path) -> None:
    described = tmp_path / "openapi.json"
    described.write_bytes(api.description())
    assert len(json.loads(described.read_bytes())["paths"]) > 15
    command = [
        *(str(ST), "run", str(described), "--url", api.url),
        *("--exclude-checks", ",".join(NOT_CHECKED)),
        *("--generation-with-security-parameters", "false"),
        *("--header", f"Authorization: Bearer {api.token}"),
        *("--tls-verify", str(api.files.certificate), "--no-color", "--seed", "1"),
        *("--max-examples", str(EXAMPLES), "--phases", "examples,coverage,fuzzing"),
        *("--generation-database", "none", "--request-timeout", "10", "--rate-limit", "45/s"),
        *("--max-time", str(MOST_S)),
        *(word for path in NOT_ASKED for word in ("--exclude-path", path)),
    ]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert ended.returncode == 0, ended.stdout[-8000:] + ended.stderr[-2000:]
    output = api.server.output()
    assert "a request failed" not in output
    assert api.token not in output
