"""The rows of the replicated tables: immutable, positional, made of what msgpack carries.

Prefixes are bytes as ``wgmap.addresses.prefix_to_bytes`` writes them, addresses are packed.
Snapshot, feed and responder all carry these rows and no other form of the state.
"""

from enum import IntEnum
from typing import NamedTuple, TypeAlias


class Table(IntEnum):
    """The replicated tables; the numbers are on disk and on the wire, never reuse one."""

    META = 0  # str -> int | bytes | str
    SERVERS = 1  # server name -> ServerRow
    PEERS = 2  # peer name -> PeerRow
    REGISTRATIONS = 3  # peer name -> RegistrationRow
    MAPPINGS = 4  # (instance, prefix) -> MappingRow
    VERSIONS = 5  # (instance, prefix) -> last version of a mapping that is gone
    AUDIT = 6  # number -> AuditRow


FEED_TABLES = frozenset({Table.META, Table.SERVERS, Table.PEERS, Table.MAPPINGS})


class ServerRow(NamedTuple):
    """A map server; endpoints are the underlay address with the two UDP ports."""

    mesh_key: bytes
    control_key: bytes
    underlay: bytes
    control_port: int
    mesh_port: int
    mesh_address: bytes
    control_address: bytes


class PeerRow(NamedTuple):
    """An enrolled host. A revoked peer keeps its row, so that its name is not reused."""

    control_key: bytes  # b"" for a plain LISP client
    control_address: bytes
    instance: int
    prefixes: tuple[bytes, ...]
    endpoint_allow: tuple[bytes, ...] = ()
    lisp_key: bytes = b""
    lisp_auth: int = 0  # AuthAlgorithm
    revoked: bool = False


class LocatorRow(NamedTuple):
    """One endpoint of a mapping, best first."""

    address: bytes
    port: int
    priority: int
    weight: int
    private_address: bytes = b""


class MappingRow(NamedTuple):
    """What is served for a prefix."""

    peer: str
    key: bytes  # data public key; b"" for a plain LISP client
    locators: tuple[LocatorRow, ...]
    ttl_min: int
    version: int  # 1..4095 (RFC 9302), 0 is "none" on the wire


class RegistrationRow(NamedTuple):
    """The last register of a peer that took effect."""

    nonce: int
    digest: bytes  # SHA-256 of what was registered: equal means "the same again"
    seen: float  # replicated clock, seconds
    ttl_min: int


class AuditRow(NamedTuple):
    """Who did what, when (replicated clock and the wall clock of the server that was asked)."""

    clock: float
    wall: str
    server: str
    operator: str
    action: str
    subject: str
    detail: str


Key: TypeAlias = str | int | tuple[int, bytes]
Row: TypeAlias = (
    ServerRow | PeerRow | RegistrationRow | MappingRow | AuditRow | int | float | bytes | str
)


class Change(NamedTuple):
    """A row that was set, or removed where ``row`` is None."""

    table: Table
    key: Key
    row: Row | None


ROW_TYPES: dict[Table, type[NamedTuple]] = {
    Table.SERVERS: ServerRow,
    Table.PEERS: PeerRow,
    Table.REGISTRATIONS: RegistrationRow,
    Table.MAPPINGS: MappingRow,
    Table.AUDIT: AuditRow,
}
