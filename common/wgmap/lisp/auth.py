"""Authentication of Map-Register, Map-Notify and Map-Notify-Ack (RFC 9301, sections 5.6, 5.7).

Works on datagrams, so that pre-encoded records can be signed. Covered is everything from the
first byte to the end of the last record with the authentication data zeroed; xTR-ID and Site-ID
are not. Which algorithms a peer may use is the caller's policy; SHA-1 must be asked for.
"""

import hashlib
import hmac

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from wgmap.lisp.codec import (
    REGISTER_I,
    SITE_ID_BYTES,
    TYPE_MAP_NOTIFY,
    TYPE_MAP_NOTIFY_ACK,
    TYPE_MAP_REGISTER,
    XTR_ID_BYTES,
    Authenticated,
    encode_authentication,
)
from wgmap.lisp.messages import AuthAlgorithm, Authentication

# Offsets in a datagram of types 3 to 5.
_NONCE = slice(4, 12)
_FIELD = 12
_DATA = 16

# Bytes of authentication data that each algorithm writes (first) and accepts. lispers.net sends
# the whole SHA-256; Open Overlay Router sends the whole SHA-1 and wants it back.
DATA_BYTES: dict[int, tuple[int, ...]] = {
    AuthAlgorithm.HMAC_SHA1: (20,),
    AuthAlgorithm.HMAC_SHA256_128: (16, 32),
    AuthAlgorithm.HKDF_SHA256: (16,),
}
# The salt of algorithm 3 tells the messages apart (RFC 9301, sections 5.6 and 5.7).
_SALTS = {
    TYPE_MAP_REGISTER: b"Map-Register Authentication",
    TYPE_MAP_NOTIFY: b"Map-Notify Authentication",
    TYPE_MAP_NOTIFY_ACK: b"Map-Notify-Ack Authentication",
}


def sign(
    datagram: bytes, key_id: int, algorithm: int, secret: bytes, *, length: int | None = None
) -> bytes:
    """Return an encoded message of types 3 to 5 with its authentication field replaced.

    ``length`` asks for a legacy number of bytes. Raises ValueError.
    """
    sizes = DATA_BYTES.get(algorithm)
    if sizes is None or (length is not None and length not in sizes):
        msg = f"authentication algorithm {algorithm} with {length} bytes"
        raise ValueError(msg)
    size = sizes[0] if length is None else length
    if len(datagram) < _DATA or datagram[0] >> 4 not in _SALTS:
        raise ValueError("not a message that carries authentication")
    rest = datagram[_DATA + int.from_bytes(datagram[14:16], "big") :]
    blank = encode_authentication(Authentication(key_id, algorithm, bytes(size)))
    unsigned = datagram[:_FIELD] + blank + rest
    mac = _mac(unsigned, algorithm, secret)[:size]
    return unsigned[:_DATA] + mac + unsigned[_DATA + size :]


def sign_like(datagram: bytes, asked: Authentication, secret: bytes) -> bytes:
    """Sign an answer in the kind of the message that it answers; raises ValueError."""
    return sign(datagram, asked.key_id, asked.algorithm, secret, length=len(asked.data))


def verify(
    datagram: bytes, message: Authenticated, secret: bytes, *, legacy_sha1: bool = False
) -> bool:
    """Tell whether ``message``, decoded from ``datagram``, was signed with ``secret``.

    Constant time in the data. False too for no authentication (algorithm 0), for unknown
    algorithms and lengths, and for SHA-1 unless the peer is enrolled with it (``legacy_sha1``).
    """
    authentication = message.authentication
    if authentication.algorithm == AuthAlgorithm.HMAC_SHA1 and not legacy_sha1:
        return False
    size = len(authentication.data)
    if size not in DATA_BYTES.get(authentication.algorithm, ()):
        return False
    zeroed = datagram[:_DATA] + bytes(size) + datagram[_DATA + size :]
    expected = _mac(zeroed, authentication.algorithm, secret)[:size]
    return hmac.compare_digest(expected, authentication.data)


def _mac(zeroed: bytes, algorithm: int, secret: bytes) -> bytes:
    has_xtr = int.from_bytes(zeroed[:4], "big") & REGISTER_I
    covered = zeroed[: len(zeroed) - (XTR_ID_BYTES + SITE_ID_BYTES if has_xtr else 0)]
    if algorithm == AuthAlgorithm.HMAC_SHA1:
        return hmac.digest(secret, covered, hashlib.sha1)
    if algorithm == AuthAlgorithm.HKDF_SHA256:
        secret = _message_key(zeroed, secret)
    return hmac.digest(secret, covered, hashlib.sha256)


def _message_key(datagram: bytes, secret: bytes) -> bytes:
    """Derive the key of one message from its nonce (RFC 9301, section 5.6; RFC 5869)."""
    salt = _SALTS[datagram[0] >> 4]
    return HKDF(SHA256(), 32, salt, None).derive(datagram[_NONCE] + secret)
