"""Where control peers were last, on disk, for after a reboot.

A rebooted server is deaf: what agents send belongs to sessions that it has lost. So it starts the
handshakes itself, from these endpoints. They are a hint: a file that is missing or spoilt costs
time until the agents' probes notice, nothing else.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from wgmap.addresses import Endpoint
from wgmap.wg.keys import PublicKey

MAX_BYTES = 64 << 20


def load(path: Path) -> dict[PublicKey, Endpoint]:
    """Read the endpoints; lines that cannot be read are passed over."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES).decode("ascii", errors="replace")
    except OSError:
        return {}
    found = {}
    for line in text.splitlines():
        key, _, endpoint = line.partition(" ")
        try:
            found[PublicKey.parse(key)] = Endpoint.parse(endpoint)
        except ValueError:
            continue
    return found


def save(path: Path, endpoints: Mapping[PublicKey, Endpoint]) -> None:
    """Write the endpoints, whole or not at all; raises OSError."""
    temporary = path.with_name(f".{path.name}.new")
    text = "".join(f"{key} {endpoint}\n" for key, endpoint in endpoints.items())
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(descriptor, "w", encoding="ascii") as file:  # noqa: PTH123  # a descriptor
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
