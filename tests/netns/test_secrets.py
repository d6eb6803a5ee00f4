"""A private key stands in its file and nowhere else that somebody might look."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.lab import Lab, execute, program
from wgmap_chaos.lab import topology

pytestmark = [pytest.mark.netns, pytest.mark.timeout(180)]

LOOKS = (
    *(("status",), ("peer", "list"), ("peer", "show", "a1"), ("audit",), ("events",)),
    *(("mapping", "list"), ("server", "list"), ("resolve", "10.66.2.1"), ("instance", "list")),
    ("trace", "10.66.2.1", "--from", "a1"),
)


def private_keys(lab: Lab) -> dict[str, bytes]:
    """Return every private key of the lab by its file."""
    hosts = (*lab.file.servers, *lab.file.agents)
    files = [path for host in hosts for path in host.state_dir.glob("*.key")]
    return {str(path): base64.b64decode(path.read_text()) for path in files}


def processes() -> Iterator[tuple[str, bytes]]:
    """Yield what every process of this machine shows of itself: its words and environment."""
    for entry in Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "environ"):
            try:
                yield f"{entry}/{name}", (entry / name).read_bytes()
            except OSError:
                continue  # it has ended


def shown(lab: Lab) -> Iterator[tuple[str, bytes]]:
    """Yield what programs and daemons say."""
    for options in ((), ("--json",)):
        for words in LOOKS:
            yield f"wgmap {words}", lab.wgmap(*words, *options, check=False).encode()
        for words in (("status",), ("trace", "10.66.2.1"), ("resolve", "10.66.2.1")):
            argv = (program("wgmap-agent"), "--socket", str(lab.file.agents[0].socket), *words)
            ended = execute(*argv, *options)
            yield f"wgmap-agent {words}", (ended.stdout + ended.stderr).encode()
    for host in (*lab.file.servers, *lab.file.agents):
        log = topology.paths(lab.directory).log(host.name)
        yield f"log of {host.name}", log.read_bytes()


def test_no_private_key_is_shown_logged_or_in_a_list_of_processes(lab: Lab, tmp_path: Path) -> None:
    source, target = lab.file.agents[:2]
    assert lab.ping(source, target) is not None
    backup = tmp_path / "backup"
    lab.wgmap("backup", str(backup))
    keys = private_keys(lab)
    assert len(keys) >= 2 * len(lab.file.servers) + 2 * len(lab.file.agents)
    places = [*shown(lab), *processes(), ("a backup that is not sealed", backup.read_bytes())]
    assert all(text for _, text in places[: 2 * len(LOOKS)])
    for file, key in keys.items():
        forms = (key, key.hex().encode(), base64.b64encode(key))  # as UAPI and as people write it
        assert not [place for place, text in places for form in forms if form in text], file


def test_it_would_be_found(lab: Lab) -> None:
    """The same search finds what is public, so it does look where it should."""
    public = json.loads(lab.wgmap("peer", "show", "a1", "--json"))["control_key"].encode()
    assert [place for place, text in shown(lab) if public in text]
