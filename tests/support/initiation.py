"""WireGuard's first message, made by hand: with the time that a test wants in it.

A peer refuses an initiation whose timestamp is not after the last one that it took. One from the
future so makes it take the sender, with the right time from then on, for one whose clock went back;
nothing else tells the two apart. (Noise_IKpsk2, https://www.wireguard.com/protocol/.)
"""

import hashlib
import hmac
import os

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from wgmap.wg.keys import PrivateKey, PublicKey

RESPONSE = 2  # the type of the answer, in its first byte
_CONSTRUCTION = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"
_IDENTIFIER = b"WireGuard v1 zx2c4 Jason@zx2c4.com"
_LABEL_MAC1 = b"mac1----"
_TAI64_EPOCH = (1 << 62) + 10  # of 1970


def initiation(sender: PrivateKey, receiver: PublicKey, wall_s: float) -> bytes:
    """Return an initiation as if sent at a wall time, in seconds since 1970."""
    own = X25519PrivateKey.from_private_bytes(sender.reveal())
    other = X25519PublicKey.from_public_bytes(bytes(receiver))
    ephemeral = X25519PrivateKey.generate()
    public = ephemeral.public_key().public_bytes_raw()
    chain = _hash(_CONSTRUCTION)
    seen = _hash(_hash(chain + _IDENTIFIER) + receiver)
    chain, _ = _derive(chain, public)
    seen = _hash(seen + public)
    chain, key = _derive(chain, ephemeral.exchange(other))
    static = _seal(key, bytes(sender.public), seen)
    seen = _hash(seen + static)
    _, key = _derive(chain, own.exchange(other))
    timestamp = _seal(key, _tai64n(wall_s), seen)
    message = b"\x01\0\0\0" + os.urandom(4) + public + static + timestamp
    mac1 = hashlib.blake2s(message, key=_hash(_LABEL_MAC1 + receiver), digest_size=16).digest()
    return message + mac1 + bytes(16)


def _hash(data: bytes) -> bytes:
    return hashlib.blake2s(data).digest()


def _derive(chain: bytes, data: bytes) -> tuple[bytes, bytes]:
    secret = hmac.digest(chain, data, "blake2s")
    first = hmac.digest(secret, b"\x01", "blake2s")
    return first, hmac.digest(secret, first + b"\x02", "blake2s")


def _seal(key: bytes, data: bytes, seen: bytes) -> bytes:
    return ChaCha20Poly1305(key).encrypt(bytes(12), data, seen)


def _tai64n(wall_s: float) -> bytes:
    whole = int(wall_s)
    return (_TAI64_EPOCH + whole).to_bytes(8) + int((wall_s - whole) * 1e9).to_bytes(4)
