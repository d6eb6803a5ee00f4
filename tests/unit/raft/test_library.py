"""The library is the very one that the layer was proven with, and leaves others alone."""

import subprocess
import sys

import pytest
from pysyncobj import SyncObj

from wgmap_cluster.raft import library

CODE = """
import wgmap_cluster.raft.library
import socket
from socket import inet_ntop
print(inet_ntop(socket.AF_INET6, bytes(15) + bytes([1])))
print(socket.inet_ntop(socket.AF_INET, bytes([127, 0, 0, 1])))
"""


def test_the_standard_library_is_whole_after_the_import() -> None:
    """PySyncObj puts a Windows-only inet_ntop in its place, which breaks netlink."""
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["::1", "127.0.0.1"]


def test_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    library._check()
    monkeypatch.setattr(library, "VERSION", "0.3.18")
    with pytest.raises(ImportError, match=r"PySyncObj 0.3.18 is installed, 0.3.17 is required"):
        library._check()


@pytest.mark.parametrize("name", ["_onTick", "_SyncObj__onBecomeLeader"])
def test_a_library_without_what_is_overridden_is_refused(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(SyncObj, name)
    with pytest.raises(ImportError, match=f"PySyncObj has no {name}"):
        library._check()
