"""Datagrams to messages and back (RFC 9301, section 5): ``decode`` and ``encode``.

``decode`` raises CodecError and nothing else, whatever the bytes; ``encode`` raises ValueError
for values that no field can carry. Reserved bits are written as 0 and ignored on receipt. A
message that is decoded and encoded again keeps its meaning; its bytes too unless it used a
freedom that the values do not record (reserved bits, host bits of a prefix, RTRs in an LCAF 7).

The ``..._header`` functions make the bytes before pre-encoded records (``records``).
"""

from collections.abc import Callable
from typing import TypeAlias, assert_never

from wgmap.addresses import IPAddress
from wgmap.lisp import lcaf, usual, writer
from wgmap.lisp.encapsulation import Packet, encode_packet, read_packet
from wgmap.lisp.messages import (
    Authentication,
    CodecError,
    Encapsulated,
    MapNotify,
    MapNotifyAck,
    MapRegister,
    MapReply,
    MapRequest,
    Message,
    Record,
    RequestRecord,
    XtrId,
)
from wgmap.lisp.reader import Reader
from wgmap.lisp.records import (
    count_of,
    encode_eid,
    encode_host_eid,
    encode_record,
    read_eid,
    read_prefix,
    read_record,
)

MAX_DATAGRAM = 65535  # bytes

TYPE_MAP_REQUEST = 1
TYPE_MAP_REPLY = 2
TYPE_MAP_REGISTER = 3
TYPE_MAP_NOTIFY = 4
TYPE_MAP_NOTIFY_ACK = 5
TYPE_ENCAPSULATED = 8

XTR_ID_BYTES = 16
SITE_ID_BYTES = 8
MAX_ITR_RLOCS = 32  # 5 bits, plus one

# Messages that carry records behind an authentication field share their layout.
Authenticated: TypeAlias = MapRegister | MapNotify | MapNotifyAck


def decode(data: bytes) -> Message:
    """Read one datagram; raises CodecError."""
    if len(data) > MAX_DATAGRAM:
        raise CodecError(f"{len(data)} bytes are no datagram", MAX_DATAGRAM)
    reader = Reader(data)
    word = reader.unsigned(4)
    read = _READERS.get(word >> 28)
    if read is None:
        raise reader.error(f"message type {word >> 28}", 0)
    message = read(reader, word)
    reader.finish()
    return message


def encode(message: Message) -> bytes:
    """Write one datagram; raises ValueError."""
    match message:
        case MapRequest():
            data = _encode_map_request(message)
        case MapReply():
            data = _encode_map_reply(message)
        case MapRegister() | MapNotify() | MapNotifyAck():
            data = _encode_authenticated(message)
        case Encapsulated():
            data = _encode_encapsulated(message)
        case _:
            assert_never(message)
    if len(data) > MAX_DATAGRAM:
        msg = f"a message of {len(data)} bytes is over {MAX_DATAGRAM}"
        raise ValueError(msg)
    return data


def _flag(bit: int) -> int:
    """Return the mask of a bit of the first word as the RFCs count: bit 0 is the highest."""
    return 1 << (31 - bit)


# ------------------------------------------------------------------------------- 1: Map-Request

#  0                   1                   2                   3
#  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |Type=1 |A|M|P|S|p|s|R|I|  Rsvd   |L|D|   IRC   | Record Count  |  RFC 9301, section 5.2
# |                         Nonce (64 bits)                       |  I: RFC 9437, section 4
# |         Source-EID-AFI        |   Source EID Address  ...     |
# |         ITR-RLOC-AFI 1        |    ITR-RLOC Address 1  ...    |  IRC + 1 of them
# |N|   Reserved  | EID mask-len  |        EID-Prefix-AFI         |  N: RFC 9437, section 4
# |                       EID-Prefix  ...                         |  Record Count of these two
# |                   Map-Reply Record  ...                       |  with M
# |              xTR-ID (128 bits), Site-ID (64 bits)             |  with I
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
REQUEST_A = _flag(4)
REQUEST_M = _flag(5)
REQUEST_P = _flag(6)
REQUEST_S = _flag(7)
REQUEST_PITR = _flag(8)
REQUEST_SMR_INVOKED = _flag(9)
REQUEST_I = _flag(11)
REQUEST_L = _flag(17)
REQUEST_D = _flag(18)
SUBSCRIBE = 0x80  # N


def _read_map_request(reader: Reader, word: int) -> MapRequest:
    nonce = reader.unsigned(8)
    source_eid = read_eid(reader)
    itr_rlocs = tuple(_read_itr_rloc(reader) for _ in range((word >> 8 & 0x1F) + 1))
    return MapRequest(
        nonce,
        itr_rlocs,
        tuple(_read_request_record(reader) for _ in range(word & 0xFF)),
        source_eid,
        authoritative=bool(word & REQUEST_A),
        map_reply_record=read_record(reader) if word & REQUEST_M else None,
        probe=bool(word & REQUEST_P),
        smr=bool(word & REQUEST_S),
        pitr=bool(word & REQUEST_PITR),
        smr_invoked=bool(word & REQUEST_SMR_INVOKED),
        local_xtr=bool(word & REQUEST_L),
        dont_map_reply=bool(word & REQUEST_D),
        xtr=_read_xtr(reader) if word & REQUEST_I else None,
    )


def _read_itr_rloc(reader: Reader) -> IPAddress:
    start = reader.offset
    address = lcaf.read_address(reader)
    if address is None:
        raise reader.error("an ITR-RLOC without an address", start)
    return address


def _read_request_record(reader: Reader) -> RequestRecord:
    flags, length = reader.take(2)
    return RequestRecord(read_prefix(reader, length), bool(flags & SUBSCRIBE))


def _encode_map_request(message: MapRequest) -> bytes:
    parts = [
        _first_word(TYPE_MAP_REQUEST, _request_bits(message), len(message.records)),
        _nonce(message.nonce),
        encode_host_eid(message.source_eid),
        *map(lcaf.write_node, message.itr_rlocs),
        *map(encode_request_record, message.records),
    ]
    if message.map_reply_record is not None:
        parts.append(encode_record(message.map_reply_record))
    return b"".join(parts) + _encode_xtr(message.xtr)


def _request_bits(message: MapRequest) -> int:
    if not 0 < len(message.itr_rlocs) <= MAX_ITR_RLOCS:
        msg = f"{len(message.itr_rlocs)} ITR-RLOCs, not 1 to {MAX_ITR_RLOCS}"
        raise ValueError(msg)
    return (
        REQUEST_A * message.authoritative
        | REQUEST_M * (message.map_reply_record is not None)
        | REQUEST_P * message.probe
        | REQUEST_S * message.smr
        | REQUEST_PITR * message.pitr
        | REQUEST_SMR_INVOKED * message.smr_invoked
        | REQUEST_I * (message.xtr is not None)
        | REQUEST_L * message.local_xtr
        | REQUEST_D * message.dont_map_reply
        | (len(message.itr_rlocs) - 1) << 8
    )


def encode_request_record(record: RequestRecord) -> bytes:
    """Write one EID that is asked for; raises ValueError."""
    head = bytes((SUBSCRIBE * record.subscribe, record.eid.prefix.prefixlen))
    return head + encode_eid(record.eid)


# --------------------------------------------------------------------------------- 2: Map-Reply

# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |Type=2 |P|E|S|          Reserved               | Record Count  |  RFC 9301, section 5.4
# |                         Nonce (64 bits)                       |
# |                   Records (see ``records``)                   |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
REPLY_P = _flag(4)
REPLY_E = _flag(5)
REPLY_S = _flag(6)


def _read_map_reply(reader: Reader, word: int) -> MapReply:
    return MapReply(
        reader.unsigned(8),
        _read_records(reader, word),
        probe=bool(word & REPLY_P),
        echo_nonce=bool(word & REPLY_E),
        security=bool(word & REPLY_S),
    )


def _encode_map_reply(message: MapReply) -> bytes:
    bits = REPLY_P * message.probe | REPLY_E * message.echo_nonce | REPLY_S * message.security
    header = _first_word(TYPE_MAP_REPLY, bits, len(message.records)) + _nonce(message.nonce)
    return header + _encode_records(message.records)


def map_reply_header(nonce: int, count: int = 1) -> bytes:
    """Return the bytes of a Map-Reply before its ``count`` records; raises ValueError."""
    return _first_word(TYPE_MAP_REPLY, 0, count) + _nonce(nonce)


# ------------------------------- 3: Map-Register, 4: Map-Notify, 5: Map-Notify-Ack

# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |Type=3 |P|S|I|       Reserved        |E|T|a|R|M| Record Count  |  RFC 9301, section 5.6
# |                         Nonce (64 bits)                       |
# |    Key ID     | Algorithm ID  |  Authentication Data Length   |
# |                     Authentication Data                       |
# |                   Records (see ``records``)                   |
# |              xTR-ID (128 bits), Site-ID (64 bits)             |  with I
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
#
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |Type=4 |Rsv|I|             Reserved            | Record Count  |  RFC 9301, section 5.7
# |              Nonce and the rest as in a Map-Register          |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
#
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |Type=5 |Rsv|I|             Reserved            | Record Count  |  RFC 9301, section 5.7
# |              Nonce and the rest as in a Map-Register          |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
REGISTER_P = _flag(4)
REGISTER_S = _flag(5)
REGISTER_I = _flag(6)
REGISTER_E = _flag(19)
REGISTER_T = _flag(20)
REGISTER_MERGE = _flag(21)
REGISTER_R = _flag(22)
REGISTER_M = _flag(23)


def _read_map_register(reader: Reader, word: int) -> MapRegister:
    return MapRegister(
        reader.unsigned(8),
        authentication=_read_authentication(reader),
        records=_read_records(reader, word),
        proxy_reply=bool(word & REGISTER_P),
        security=bool(word & REGISTER_S),
        no_merge=bool(word & REGISTER_E),
        use_ttl=bool(word & REGISTER_T),
        merge=bool(word & REGISTER_MERGE),
        mobile=bool(word & REGISTER_R),
        want_notify=bool(word & REGISTER_M),
        xtr=_read_xtr(reader) if word & REGISTER_I else None,
    )


def _read_map_notify(reader: Reader, word: int) -> MapNotify:
    return MapNotify(
        reader.unsigned(8),
        authentication=_read_authentication(reader),
        records=_read_records(reader, word),
        xtr=_read_xtr(reader) if word & REGISTER_I else None,
    )


def _read_map_notify_ack(reader: Reader, word: int) -> MapNotifyAck:
    return MapNotifyAck(
        reader.unsigned(8),
        authentication=_read_authentication(reader),
        records=_read_records(reader, word),
        xtr=_read_xtr(reader) if word & REGISTER_I else None,
    )


def _read_authentication(reader: Reader) -> Authentication:
    key_id, algorithm = reader.take(2)
    return Authentication(key_id, algorithm, reader.take(reader.unsigned(2)))


def _encode_authenticated(message: Authenticated) -> bytes:
    kind, bits = _kind_and_bits(message)
    bits |= REGISTER_I * (message.xtr is not None)
    parts = (
        _first_word(kind, bits, len(message.records)),
        _nonce(message.nonce),
        encode_authentication(message.authentication),
        _encode_records(message.records),
        _encode_xtr(message.xtr),
    )
    return b"".join(parts)


def _kind_and_bits(message: Authenticated) -> tuple[int, int]:
    if isinstance(message, MapNotify):
        return TYPE_MAP_NOTIFY, 0
    if isinstance(message, MapNotifyAck):
        return TYPE_MAP_NOTIFY_ACK, 0
    return TYPE_MAP_REGISTER, (
        REGISTER_P * message.proxy_reply
        | REGISTER_S * message.security
        | REGISTER_E * message.no_merge
        | REGISTER_T * message.use_ttl
        | REGISTER_MERGE * message.merge
        | REGISTER_R * message.mobile
        | REGISTER_M * message.want_notify
    )


def encode_authentication(authentication: Authentication) -> bytes:
    """Write Key ID, Algorithm ID, length and data; raises ValueError."""
    ids = (
        writer.bits(authentication.key_id, 8, "key id"),
        writer.bits(authentication.algorithm, 8, "algorithm id"),
    )
    size = writer.unsigned(len(authentication.data), 2, "authentication length")
    return bytes(ids) + size + authentication.data


def map_notify_header(nonce: int, count: int = 1, *, identified: bool = False) -> bytes:
    """Return the bytes of a Map-Notify without authentication before its records.

    ``identified``: an I field follows them. Raises ValueError. To sign the joined datagram:
    ``auth.sign``.
    """
    return _first_word(TYPE_MAP_NOTIFY, REGISTER_I * identified, count) + _nonce(nonce) + bytes(4)


def map_notify_ack_header(nonce: int, count: int = 1) -> bytes:
    """Return the bytes of a Map-Notify-Ack without authentication before its records."""
    return _first_word(TYPE_MAP_NOTIFY_ACK, 0, count) + _nonce(nonce) + bytes(4)


def acknowledgement(notify: bytes) -> bytes:
    """Return the Map-Notify-Ack to a Map-Notify that needs no authentication: it repeats it."""
    return bytes((TYPE_MAP_NOTIFY_ACK << 4 | notify[0] & 0x0F,)) + notify[1:]


# ------------------------------------------------------------ 8: Encapsulated Control Message

# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |Type=8 |S|D|E|M|                   Reserved                    |  RFC 9301, section 5.8
# |                   IPv4 or IPv6 Header                         |  E, M: RFC 8111, section 5
# |                         UDP Header                            |
# |                 LISP Control Message: Map-Request             |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
ENCAPSULATED_S = _flag(4)
ENCAPSULATED_D = _flag(5)
ENCAPSULATED_E = _flag(6)
ENCAPSULATED_M = _flag(7)


def _read_encapsulated(reader: Reader, word: int) -> Encapsulated:
    if word & ENCAPSULATED_S:
        raise reader.error("an encapsulated message with LISP-SEC", 0)
    packet = read_packet(reader)
    start = reader.offset - len(packet.payload)
    return Encapsulated(
        packet.source,
        packet.source_port,
        packet.destination,
        packet.destination_port,
        _read_inner(packet.payload, start),
        ddt_originated=bool(word & ENCAPSULATED_D),
        to_etr=bool(word & ENCAPSULATED_E),
        to_map_server=bool(word & ENCAPSULATED_M),
    )


def _read_inner(payload: bytes, start: int) -> MapRequest:
    if not payload or payload[0] >> 4 != TYPE_MAP_REQUEST:
        raise CodecError("the inner message is not a Map-Request", start)
    inner = Reader(payload)
    try:
        message = _read_map_request(inner, inner.unsigned(4))
        inner.finish()
    except CodecError as error:
        raise CodecError(error.reason, start + error.offset) from None
    return message


def _encode_encapsulated(message: Encapsulated) -> bytes:
    bits = (
        ENCAPSULATED_D * message.ddt_originated
        | ENCAPSULATED_E * message.to_etr
        | ENCAPSULATED_M * message.to_map_server
    )
    packet = Packet(
        message.source,
        message.source_port,
        message.destination,
        message.destination_port,
        _encode_map_request(message.message),
    )
    return _first_word(TYPE_ENCAPSULATED, bits, 0) + encode_packet(packet)


# -------------------------------------------------------------------------------- common parts


def _first_word(kind: int, bits: int, count: int) -> bytes:
    return (kind << 28 | bits | writer.bits(count, 8, "record count")).to_bytes(4, "big")


def _nonce(nonce: int) -> bytes:
    return writer.unsigned(nonce, 8, "nonce")


def _read_records(reader: Reader, word: int) -> tuple[Record, ...]:
    return tuple(usual.read(reader) or read_record(reader) for _ in range(word & 0xFF))


def _encode_records(records: tuple[Record, ...]) -> bytes:
    count_of(records, "records")
    return b"".join(map(encode_record, records))


def _read_xtr(reader: Reader) -> XtrId:
    return XtrId(reader.take(XTR_ID_BYTES), reader.take(SITE_ID_BYTES))


def _encode_xtr(xtr: XtrId | None) -> bytes:
    if xtr is None:
        return b""
    return writer.exactly(xtr.xtr_id, XTR_ID_BYTES, "xTR-ID") + writer.exactly(
        xtr.site_id, SITE_ID_BYTES, "Site-ID"
    )


_READERS: dict[int, Callable[[Reader, int], Message]] = {
    TYPE_MAP_REQUEST: _read_map_request,
    TYPE_MAP_REPLY: _read_map_reply,
    TYPE_MAP_REGISTER: _read_map_register,
    TYPE_MAP_NOTIFY: _read_map_notify,
    TYPE_MAP_NOTIFY_ACK: _read_map_notify_ack,
    TYPE_ENCAPSULATED: _read_encapsulated,
}
