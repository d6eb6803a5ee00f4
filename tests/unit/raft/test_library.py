import subprocess
import sys

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
