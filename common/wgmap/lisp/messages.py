"""The messages as immutable values. How they become bytes is in ``codec``.

Sources: RFC 9301 (section 5), RFC 8060 (LCAF), RFC 8061 (security keys), RFC 9437
(subscription), RFC 9302 (map versions). Nonces are integers of 64 bits.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import TypeAlias

from wgmap.addresses import IPAddress, IPNetwork

LISP_PORT = 4342
WIREGUARD_KEY_ALGORITHM = 6  # RFC 8061: Curve25519 with ChaCha20-Poly1305


class Action(IntEnum):
    """ACT of a record: what to do where there are no locators (RFC 9301, section 5.4)."""

    NO_ACTION = 0
    NATIVELY_FORWARD = 1
    SEND_MAP_REQUEST = 2
    DROP = 3
    POLICY_DENIED = 4
    AUTHENTICATION_FAILURE = 5


class AuthAlgorithm(IntEnum):
    """Algorithm ID of Map-Register and Map-Notify (RFC 9301, section 12.5)."""

    NONE = 0
    HMAC_SHA1 = 1
    HMAC_SHA256_128 = 2
    HKDF_SHA256 = 3


@dataclass(frozen=True, slots=True)
class Eid:
    """An EID prefix in an instance (LCAF type 2 where the instance is not 0)."""

    prefix: IPNetwork
    instance: int = 0


class LocatorForm(IntEnum):
    """The layouts of a locator that are understood; WGMAP is the one that is sent."""

    PLAIN = 0  # an address
    WGMAP = 1  # AFI list { LCAF 7, LCAF 11 }
    KEY_ADDRESS = 2  # LCAF 11 over an address
    KEY_NAT = 3  # LCAF 11 over LCAF 7
    LIST_ADDRESS_KEY = 4  # AFI list { address, LCAF 11 } (lispers.net)


@dataclass(frozen=True, slots=True)
class Locator:
    """One underlay endpoint of a mapping, with the peer's public key where it has one."""

    address: IPAddress
    port: int = 51820  # meaningless in PLAIN
    key: bytes | None = None  # 32 bytes
    key_revoked: bool = False
    priority: int = 1  # 255: must not be used
    weight: int = 100
    multicast_priority: int = 255
    multicast_weight: int = 0
    local: bool = False
    probed: bool = False
    reachable: bool = True
    private_address: IPAddress | None = None  # behind a NAT: the address on its inside
    form: LocatorForm = LocatorForm.WGMAP


@dataclass(frozen=True, slots=True)
class Record:
    """An EID-to-RLOC mapping record (RFC 9301, section 5.4)."""

    eid: Eid
    locators: tuple[Locator, ...] = ()
    ttl_min: int = 1440  # minutes; 0 withdraws
    action: Action = Action.NO_ACTION
    authoritative: bool = False
    version: int = 0  # 12 bits, RFC 9302; 0: not used


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One EID that is asked for; ``subscribe`` is the N bit of RFC 9437."""

    eid: Eid
    subscribe: bool = False


@dataclass(frozen=True, slots=True)
class XtrId:
    """xTR-ID (16 bytes) and Site-ID (8 bytes), present with the I bit."""

    xtr_id: bytes
    site_id: bytes


@dataclass(frozen=True, slots=True)
class MapRequest:
    """Type 1 (RFC 9301, section 5.2). With ``smr`` it is a Solicit-Map-Request.

    ``smr_invoked`` (the s bit) is what wgmap calls a refresh.
    """

    nonce: int
    itr_rlocs: tuple[IPAddress, ...]
    records: tuple[RequestRecord, ...]
    source_eid: Eid | None = None  # None: AFI 0
    authoritative: bool = False  # A
    map_reply_record: Record | None = None  # present with the M bit: the asker's own mapping
    probe: bool = False  # P
    smr: bool = False  # S
    pitr: bool = False  # p
    smr_invoked: bool = False  # s
    local_xtr: bool = False  # L
    dont_map_reply: bool = False  # D
    xtr: XtrId | None = None  # I


@dataclass(frozen=True, slots=True)
class MapReply:
    """Type 2 (RFC 9301, section 5.4)."""

    nonce: int
    records: tuple[Record, ...]
    probe: bool = False  # P
    echo_nonce: bool = False  # E
    security: bool = False  # S


@dataclass(frozen=True, slots=True)
class Authentication:
    """Key ID, algorithm and data of types 3 to 5; the default is WireGuard's own proof."""

    key_id: int = 0
    algorithm: int = AuthAlgorithm.NONE
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class MapRegister:
    """Type 3 (RFC 9301, section 5.6)."""

    nonce: int
    records: tuple[Record, ...]
    authentication: Authentication = Authentication()
    proxy_reply: bool = False  # P
    security: bool = False  # S
    no_merge: bool = False  # E: EID notify in older texts
    use_ttl: bool = False  # T
    merge: bool = False  # a
    mobile: bool = False  # R
    want_notify: bool = True  # M
    xtr: XtrId | None = None  # I


@dataclass(frozen=True, slots=True)
class MapNotify:
    """Type 4 (RFC 9301, section 5.7): answers a register, or is pushed unsolicited."""

    nonce: int
    records: tuple[Record, ...]
    authentication: Authentication = Authentication()
    xtr: XtrId | None = None


@dataclass(frozen=True, slots=True)
class MapNotifyAck:
    """Type 5: same nonce as the Map-Notify that it acknowledges."""

    nonce: int
    records: tuple[Record, ...]
    authentication: Authentication = Authentication()
    xtr: XtrId | None = None


@dataclass(frozen=True, slots=True)
class Encapsulated:
    """Type 8: an inner IP/UDP packet around a Map-Request (RFC 9301, section 5.8).

    One with the S bit (LISP-SEC) has another layout and is refused.
    """

    source: IPAddress
    source_port: int
    destination: IPAddress
    destination_port: int
    message: MapRequest
    ddt_originated: bool = False  # D
    to_etr: bool = False  # E
    to_map_server: bool = False  # M


Message: TypeAlias = MapRequest | MapReply | MapRegister | MapNotify | MapNotifyAck | Encapsulated


class CodecError(ValueError):
    """Bytes that are not a message: what was wrong, and at which offset from the first byte."""

    def __init__(self, reason: str, offset: int) -> None:
        self.reason = reason
        self.offset = offset
        super().__init__(f"{reason} at offset {offset}")
