"""The admin API of a real server, asked by schemathesis for all that its description allows."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.api_server import Api, serving

ST = Path(sys.executable).with_name("schemathesis")
LONG_S = int(os.environ.get("WGMAP_API_SECONDS") or 1200)
LONG = bool(os.environ.get("WGMAP_LONG") or os.environ.get("WGMAP_API_SECONDS"))
MOST_S = LONG_S if LONG else 25
SEED = os.environ.get("WGMAP_API_SEED") or "1"
EXAMPLES = 1000 if LONG else 20  # of each operation
# Without a token all that is not known counts against the source, so the answer becomes 429: the
# tokens have tests of their own. What a schema cannot say (a prefix has no host bits, a name is
# taken) is refused as it must be.
NOT_CHECKED = ("ignored_auth", "missing_required_header", "positive_data_acceptance")
# These last as long as one listens, or change who the servers are: they have tests of their own.
NOT_ASKED = ("/v1/events", "/v1/restore", "/v1/leader", "/v1/servers", "/v1/servers/{name}")


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    with serving(tmp_path) as made:
        yield made


@pytest.mark.slow
@pytest.mark.timeout(MOST_S + 600 if LONG else 180)
def test_whatever_is_asked_the_answer_is_as_described(api: Api, tmp_path: Path) -> None:
    described = tmp_path / "openapi.json"
    described.write_bytes(api.description())
    assert len(json.loads(described.read_bytes())["paths"]) > 15
    command = [
        *(str(ST), "run", str(described), "--url", api.url),
        *("--exclude-checks", ",".join(NOT_CHECKED)),
        *("--generation-with-security-parameters", "false"),
        *("--header", f"Authorization: Bearer {api.token}"),
        *("--tls-verify", str(api.files.certificate), "--no-color", "--seed", SEED),
        *("--max-examples", str(EXAMPLES), "--phases", "examples,coverage,fuzzing"),
        *("--generation-database", "none", "--request-timeout", "10", "--rate-limit", "45/s"),
        *("--max-time", str(MOST_S)),
        *(word for path in NOT_ASKED for word in ("--exclude-path", path)),
    ]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    output = api.server.output()
    assert ended.returncode == 0, ended.stdout[-8000:] + ended.stderr[-2000:] + output[-4000:]
    assert "a request failed" not in output
    assert api.token not in output
