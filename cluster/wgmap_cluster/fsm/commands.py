"""The commands of the replicated log: values, their bytes, and strict decoding.

A command is msgpack ``[version, op, fields...]``, at most MAX_COMMAND_BYTES. Numbers of
operations are on disk: never reuse one. Prefixes are bytes as ``prefix_to_bytes`` writes them,
addresses are packed, times are seconds of the replicated clock.

The version is the first one that reads the command: an older server stops there, for if it passed
the command by, it would differ from the others for ever. So whoever adds a command raises VERSION
and names it in SINCE; a field that is added stands at the end, has the default None, and is named
in FIELDS_SINCE: a command without it is written as before, and older servers read it.
"""

import hashlib
from dataclasses import MISSING, dataclass, fields
from enum import IntEnum
from typing import Any, ClassVar, NamedTuple, TypeAlias

import msgpack

from wgmap_cluster.fsm import fields as field
from wgmap_cluster.fsm.fields import Check, FieldError
from wgmap_cluster.fsm.rows import LocatorRow, ServerRow
from wgmap_cluster.raft.interface import MAX_COMMAND_BYTES

VERSION = 4  # the newest that this server reads
MAX_PREFIXES = 64  # enrolled for one peer, and registered by one
MAX_ENDPOINTS = 64
MAX_LOCATORS = 8
MAX_SERVERS = 32
MAX_ENROLLED = 500  # peers in one EnrolMany: a few ms to apply
MAX_INSTANCE_MAPPINGS = (1 << 32) - 1
MAX_BATCH = 2048  # names in one Seen or Expire; the size limit comes first for long names


class NewerCommandError(Exception):
    """A command of a version that this server does not read."""


class CommandError(ValueError):
    """Bytes that are no command, or a command that is too large."""


class Op(IntEnum):
    """Numbers of the operations."""

    BOOTSTRAP = 1
    ENROL = 2
    SET_PEER = 3
    REVOKE = 4
    REGISTER = 5
    SEEN = 6
    EXPIRE = 7
    ADVANCE = 8
    SET_SERVER = 9
    REMOVE_SERVER = 10
    ENROL_MANY = 11
    SET_INSTANCE = 12
    RESTORE_BEGIN = 13
    RESTORE_ROWS = 14
    RESTORE_END = 15
    NOTE = 16


class Origin(NamedTuple):
    """Who asked, for the audit: the server that was asked, the operator, its wall clock."""

    server: str
    operator: str
    wall: str


class NewPeer(NamedTuple):
    """A peer to enrol: by its control key, or a plain LISP client by its address."""

    name: str
    instance: int
    prefixes: tuple[bytes, ...]
    control_key: bytes = b""
    control_address: bytes = b""  # only without a key: with one it is derived
    endpoint_allow: tuple[bytes, ...] = ()
    lisp_key: bytes = b""
    lisp_auth: int = 0
    limit: int = 0


class Offer(NamedTuple):
    """One mapping of a Register: a prefix, locators in its peer's order, a TTL (0 withdraws)."""

    prefix: bytes
    locators: tuple[LocatorRow, ...]
    ttl_min: int


_ORIGIN = field.row(Origin, field.text(63), field.text(128), field.text(64))
_PREFIXES = field.many(field.PREFIX, MAX_PREFIXES)
_ALLOWED = field.many(field.PREFIX, MAX_ENDPOINTS)
_SERVER = field.row(
    ServerRow,
    *(field.KEY, field.KEY, field.ADDRESS, field.PORT, field.PORT, field.ADDRESS, field.ADDRESS),
)
_LOCATOR = field.row(
    LocatorRow,
    *(field.ADDRESS, field.PORT, field.OCTET, field.OCTET, field.or_empty(field.ADDRESS)),
)
_OFFER = field.row(Offer, field.PREFIX, field.many(_LOCATOR, MAX_LOCATORS), field.integer(1 << 31))
_LISP_KEY = field.octets(0, 128)
_LISP_AUTH = field.integer(3)
_LIMIT = field.integer(MAX_PREFIXES)
_NEW_PEER = field.row(
    NewPeer,
    *(field.NAME, field.INSTANCE, _PREFIXES),
    *(field.or_empty(field.KEY), field.or_empty(field.ADDRESS), _ALLOWED),
    *(_LISP_KEY, _LISP_AUTH, _LIMIT),
)
_DIGEST = field.octets(32, 32)
_COUNT = field.integer(1 << 32)


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """Found the cluster; takes effect only on an empty state."""

    OP: ClassVar = Op.BOOTSTRAP
    CHECKS: ClassVar = (
        *(field.octets(16, 16), field.PREFIX, _PREFIXES),
        *(field.many(field.pair(field.NAME, _SERVER), MAX_SERVERS), _ORIGIN),
    )
    cluster_id: bytes
    control_prefix: bytes
    overlay: tuple[bytes, ...]
    servers: tuple[tuple[str, ServerRow], ...]
    origin: Origin


@dataclass(frozen=True, slots=True)
class Enrol:
    """Enrol a peer by its control key, or a plain LISP client by its address."""

    OP: ClassVar = Op.ENROL
    CHECKS: ClassVar = (
        *(field.NAME, field.INSTANCE, _PREFIXES, _ORIGIN),
        *(field.or_empty(field.KEY), field.or_empty(field.ADDRESS), _ALLOWED),
        *(_LISP_KEY, _LISP_AUTH, _LIMIT),
    )
    name: str
    instance: int
    prefixes: tuple[bytes, ...]
    origin: Origin
    control_key: bytes = b""
    control_address: bytes = b""  # only without a key: with one it is derived
    endpoint_allow: tuple[bytes, ...] = ()
    lisp_key: bytes = b""
    lisp_auth: int = 0
    limit: int = 0

    def peer(self) -> NewPeer:
        """Return what is asked for, without who asks."""
        return NewPeer(
            *(self.name, self.instance, self.prefixes, self.control_key, self.control_address),
            *(self.endpoint_allow, self.lisp_key, self.lisp_auth, self.limit),
        )


@dataclass(frozen=True, slots=True)
class EnrolMany:
    """Enrol all of these peers, or none; those that are there already with these values stay."""

    OP: ClassVar = Op.ENROL_MANY
    CHECKS: ClassVar = (field.many(_NEW_PEER, MAX_ENROLLED), _ORIGIN)
    peers: tuple[NewPeer, ...]
    origin: Origin


@dataclass(frozen=True, slots=True)
class SetPeer:
    """Change an enrolled peer; None leaves a field as it is.

    A new control key starts the peer anew: its mappings go, its last nonce is forgotten. A new
    name changes nothing else. With ``if_revision`` it takes effect on that revision only.
    """

    OP: ClassVar = Op.SET_PEER
    CHECKS: ClassVar = (
        *(field.NAME, _ORIGIN, field.optional(_PREFIXES), field.optional(_ALLOWED)),
        *(field.optional(field.KEY), field.optional(_LISP_KEY), field.optional(_LISP_AUTH)),
        *(field.optional(field.NAME), field.optional(_LIMIT), field.optional(field.NONCE)),
    )
    name: str
    origin: Origin
    prefixes: tuple[bytes, ...] | None = None
    endpoint_allow: tuple[bytes, ...] | None = None
    control_key: bytes | None = None
    lisp_key: bytes | None = None
    lisp_auth: int | None = None
    new_name: str | None = None
    limit: int | None = None  # 0: the default
    if_revision: int | None = None


@dataclass(frozen=True, slots=True)
class Revoke:
    """Shut a peer out for good; its name stays reserved.

    With ``if_revision`` it takes effect on that revision only; who is revoked already, stays so.
    """

    OP: ClassVar = Op.REVOKE
    CHECKS: ClassVar = (field.NAME, _ORIGIN, field.optional(field.NONCE))
    name: str
    origin: Origin
    if_revision: int | None = None


@dataclass(frozen=True, slots=True)
class Register:
    """A peer's Map-Register, with the locators that were accepted."""

    OP: ClassVar = Op.REGISTER
    CHECKS: ClassVar = (
        *(field.ADDRESS, field.NONCE, field.INSTANCE, field.or_empty(field.KEY)),
        field.many(_OFFER, MAX_PREFIXES),
    )
    control_address: bytes  # the source address, which the control tunnel proves
    nonce: int
    instance: int
    key: bytes  # data public key; b"" for a plain LISP client
    offers: tuple[Offer, ...]

    def digest(self) -> bytes:
        """Return 32 bytes that are equal where the same is registered again."""
        content = (self.instance, self.key, sorted(self.offers))
        return hashlib.sha256(msgpack.packb(content)).digest()


@dataclass(frozen=True, slots=True)
class Seen:
    """Peers that repeated their register since the last batch."""

    OP: ClassVar = Op.SEEN
    CHECKS: ClassVar = (field.many(field.NAME, MAX_BATCH),)
    peers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Expire:
    """Take the mappings of peers whose grace is over at ``clock``; others are left alone."""

    OP: ClassVar = Op.EXPIRE
    CHECKS: ClassVar = (field.CLOCK, field.many(field.NAME, MAX_BATCH))
    clock: float
    peers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Advance:
    """Set the replicated clock forward; an earlier value changes nothing."""

    OP: ClassVar = Op.ADVANCE
    CHECKS: ClassVar = (field.CLOCK,)
    clock: float


@dataclass(frozen=True, slots=True)
class SetServer:
    """Add a map server, or change what is known of one."""

    OP: ClassVar = Op.SET_SERVER
    CHECKS: ClassVar = (field.NAME, _SERVER, _ORIGIN)
    name: str
    row: ServerRow
    origin: Origin


@dataclass(frozen=True, slots=True)
class RemoveServer:
    """Take a map server out of the set; the last one stays."""

    OP: ClassVar = Op.REMOVE_SERVER
    CHECKS: ClassVar = (field.NAME, _ORIGIN)
    name: str
    origin: Origin


@dataclass(frozen=True, slots=True)
class SetInstance:
    """Set an instance's overlay or limit; None leaves a field, empty or 0 means the default.

    With ``if_tag`` it takes effect on the values of that tag only (``instances.tag``).
    """

    OP: ClassVar = Op.SET_INSTANCE
    CHECKS: ClassVar = (
        *(field.INSTANCE, _ORIGIN, field.optional(_PREFIXES)),
        *(field.optional(field.integer(MAX_INSTANCE_MAPPINGS)), field.optional(field.NONCE)),
    )
    instance: int
    origin: Origin
    overlay: tuple[bytes, ...] | None = None
    max_mappings: int | None = None
    if_tag: int | None = None


@dataclass(frozen=True, slots=True)
class RestoreBegin:
    """Begin to restore a backup into a cluster that is empty, or go on with the same one."""

    OP: ClassVar = Op.RESTORE_BEGIN
    CHECKS: ClassVar = (_DIGEST, field.PREFIX, _ORIGIN)
    digest: bytes  # SHA-256 of what is restored
    control_prefix: bytes  # must be this cluster's: control addresses come from it
    origin: Origin


@dataclass(frozen=True, slots=True)
class RestoreRows:
    """Put one piece of a backup in; pieces count from 1, and each takes effect once."""

    OP: ClassVar = Op.RESTORE_ROWS
    CHECKS: ClassVar = (_DIGEST, _COUNT, field.octets(0, MAX_COMMAND_BYTES))
    digest: bytes
    number: int
    rows: bytes  # as ``packing.pack_rows`` writes them


@dataclass(frozen=True, slots=True)
class RestoreEnd:
    """End a restore, once all its pieces are in."""

    OP: ClassVar = Op.RESTORE_END
    CHECKS: ClassVar = (_DIGEST, _COUNT, field.text(256), _ORIGIN)
    digest: bytes
    pieces: int
    detail: str
    origin: Origin


@dataclass(frozen=True, slots=True)
class Note:
    """Leave a row in the audit trail of what changes nothing else (a backup was taken)."""

    OP: ClassVar = Op.NOTE
    CHECKS: ClassVar = (field.text(32), field.text(128), field.text(256), _ORIGIN)
    action: str
    subject: str
    detail: str
    origin: Origin


Command: TypeAlias = (
    Bootstrap
    | Enrol
    | SetPeer
    | Revoke
    | Register
    | Seen
    | Expire
    | Advance
    | SetServer
    | RemoveServer
    | EnrolMany
    | SetInstance
    | RestoreBegin
    | RestoreRows
    | RestoreEnd
    | Note
)

_BY_OP: dict[int, type[Command]] = {
    kind.OP: kind
    for kind in (
        *(Bootstrap, Enrol, SetPeer, Revoke, Register, Seen, Expire, Advance),
        *(SetServer, RemoveServer, EnrolMany, SetInstance),
        *(RestoreBegin, RestoreRows, RestoreEnd, Note),
    )
}


# The version of commands that came later than version 1, and of last fields that came later.
SINCE: dict[Op, int] = {Op.NOTE: 2}
FIELDS_SINCE: dict[Op, dict[str, int]] = {
    Op.REVOKE: {"if_revision": 3},
    Op.SET_INSTANCE: {"if_tag": 4},
}


def version_of(command: Command) -> int:
    """Return the first version that reads this command."""
    later = FIELDS_SINCE.get(command.OP, {})
    given = (since for name, since in later.items() if getattr(command, name) is not None)
    return max([SINCE.get(command.OP, 1), *given])


def encode(command: Command) -> bytes:
    """Write a command; raises CommandError where it is larger than the log takes."""
    values = [getattr(command, each.name) for each in fields(command)]
    for _ in FIELDS_SINCE.get(command.OP, ()):
        if values[-1] is not None:
            break
        values.pop()  # older servers read it without
    data: bytes = msgpack.packb([version_of(command), int(command.OP), *values])
    if len(data) > MAX_COMMAND_BYTES:
        raise CommandError(f"{type(command).__name__}: {len(data)} bytes are too many")
    return data


def decode(data: bytes) -> Command:
    """Read a command; raises CommandError saying what is wrong with it, or NewerCommandError."""
    if len(data) > MAX_COMMAND_BYTES:
        raise CommandError(f"{len(data)} bytes are too many")
    try:
        raw = msgpack.unpackb(data, use_list=False, max_map_len=0, max_ext_len=0)
    except (ValueError, TypeError, msgpack.UnpackException, msgpack.StackError) as error:
        raise CommandError(f"not msgpack: {error}") from error
    if not isinstance(raw, tuple) or len(raw) < 2 or type(raw[0]) is not int or raw[0] < 1:
        raise CommandError("not a command")
    if raw[0] > VERSION:
        raise NewerCommandError(
            f"a command of version {raw[0]}; this server reads up to {VERSION}: upgrade it"
        )
    kind = _BY_OP.get(raw[1]) if type(raw[1]) is int else None
    if kind is None:
        raise CommandError(f"unknown operation {raw[1]!r:.40}")
    return _build(kind, raw[2:])


def _build(kind: type[Command], values: tuple[Any, ...]) -> Command:
    checks: tuple[Check, ...] = kind.CHECKS
    # Fields that were added later have defaults, so that commands of older logs can be read.
    optional = sum(each.default is not MISSING for each in fields(kind))
    if not len(checks) - optional <= len(values) <= len(checks):
        raise CommandError(f"{kind.__name__}: {len(values)} fields instead of {len(checks)}")
    checked = []
    for each, check, value in zip(fields(kind), checks, values, strict=False):
        try:
            checked.append(check(value))
        except FieldError as error:
            raise CommandError(f"{kind.__name__}.{each.name}: {error}") from error
    return kind(*checked)
