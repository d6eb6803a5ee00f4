"""One number for the whole replicated state: equal on two servers that applied the same."""

import hashlib
from collections.abc import Mapping
from typing import Any

import msgpack

from wgmap_cluster.fsm.rows import Table

BYTES = 32


def digest(tables: Mapping[Table, Mapping[Any, Any]]) -> bytes:
    """Sum the SHA-256 of all rows: the order in which tables hold them does not count."""
    total = 0
    packer = msgpack.Packer(autoreset=True)
    for table, rows in tables.items():
        for key, row in rows.items():
            total += int.from_bytes(hashlib.sha256(packer.pack([table, key, row])).digest())
    return (total % (1 << 8 * BYTES)).to_bytes(BYTES)
