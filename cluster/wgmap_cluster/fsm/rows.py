"""The rows of the replicated tables: immutable, positional, made of what msgpack carries.

Prefixes are bytes as ``wgmap.addresses.prefix_to_bytes`` writes them, addresses are packed.
Snapshot, feed and responder all carry these rows and no other form of the state.
"""

from enum import IntEnum, StrEnum
from typing import NamedTuple, TypeAlias


class Table(IntEnum):
    """The replicated tables; the numbers are on disk and on the wire, never reuse one."""

    META = 0  # Meta -> int | float | bytes | str
    SERVERS = 1  # server name -> ServerRow
    PEERS = 2  # peer name -> PeerRow
    REGISTRATIONS = 3  # peer name -> RegistrationRow
    MAPPINGS = 4  # (instance, prefix) -> MappingRow
    VERSIONS = 5  # (instance, enrolled prefix) -> newest version of mappings inside it now gone
    AUDIT = 6  # number -> AuditRow
    REVOCATIONS = 7  # number, from 1 -> RevocationRow
    INSTANCES = 8  # instance id -> InstanceRow, for those that differ from the defaults


FEED_TABLES = frozenset(
    {
        *(Table.META, Table.SERVERS, Table.PEERS, Table.MAPPINGS),
        *(Table.REVOCATIONS, Table.INSTANCES),
    }
)


class Meta(StrEnum):
    """The keys of the META table."""

    CLUSTER_ID = "cluster_id"  # 16 bytes
    CONTROL_PREFIX = "control_prefix"  # text, a /64
    OVERLAY = "overlay"  # prefixes as text, separated by spaces; of instances without their own
    CLOCK = "clock"  # replicated clock: seconds, a float that never goes back
    REVOCATIONS = "revocations"  # number of the last revocation, 0 before the first
    AUDITED = "audited"  # number of the last audit row
    VERSION_FLOOR = "version_floor"  # last version of prefixes that nothing is known of
    RESTORING = "restoring"  # digest of the backup that is being restored; absent otherwise
    RESTORED = "restored"  # how many of its pieces are in
    RESTORED_FROM = "restored_from"  # digest of the backup that this cluster was made from


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
    limit: int = 0  # most prefixes and mappings at one time; 0: the default
    revision: int = 1  # rises with every change by an operator


class InstanceRow(NamedTuple):
    """A virtual network with an address space of its own."""

    overlay: tuple[bytes, ...] = ()  # empty: the cluster's
    max_mappings: int = 0  # 0: the default


class LocatorRow(NamedTuple):
    """One endpoint of a mapping; a mapping keeps them in the order of its peer."""

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
    ttl_min: int  # shortest of its mappings; 0: none is left (withdrawn or expired)
    key: bytes = b""  # its data public key, kept for a revocation after the mappings are gone


class RevocationRow(NamedTuple):
    """What every agent must drop; agents that were away ask for those since their last one."""

    peer: str
    instance: int
    prefixes: tuple[bytes, ...]  # enrolled prefixes, under which its mappings lay
    key: bytes  # last data public key, b"" where the peer never had one


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
    ServerRow
    | PeerRow
    | RegistrationRow
    | MappingRow
    | AuditRow
    | RevocationRow
    | InstanceRow
    | int
    | float
    | bytes
    | str
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
    Table.REVOCATIONS: RevocationRow,
    Table.INSTANCES: InstanceRow,
}
