"""Servers' private keys in a backup: sealed to an operator's public key (X25519).

An ephemeral X25519 key, HKDF-SHA-256 salted with both public keys, ChaCha20-Poly1305; the name of
the server and the cluster's id are authenticated with it. What seals it cannot open it again.

    sealed: ephemeral public key (32) | ciphertext and tag
"""

import msgpack
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from wgmap.errors import ConfigError
from wgmap.wg.keys import PrivateKey, PublicKey

_INFO = b"wgmap backup: keys of a server, format 1"
_NONCE = bytes(12)  # each key seals once
_PUBLIC = 32


def seal(keys: dict[str, bytes], to: PublicKey, cluster_id: bytes, server: str) -> bytes:
    """Seal private keys by name; raises ConfigError for a public key that is none."""
    ephemeral = X25519PrivateKey.generate()
    own = ephemeral.public_key().public_bytes_raw()
    cipher = _cipher(ephemeral, bytes(to), own + bytes(to))
    return own + cipher.encrypt(_NONCE, msgpack.packb(keys), _context(cluster_id, server))


def unseal(sealed: bytes, key: PrivateKey, cluster_id: bytes, server: str) -> dict[str, bytes]:
    """Return the private keys by name; raises ConfigError where the key does not fit."""
    ephemeral, ciphertext = sealed[:_PUBLIC], sealed[_PUBLIC:]
    if len(ephemeral) < _PUBLIC:
        raise ConfigError("sealed keys that are cut short")
    private = X25519PrivateKey.from_private_bytes(key.reveal())
    cipher = _cipher(private, ephemeral, ephemeral + bytes(key.public))
    try:
        plain = cipher.decrypt(_NONCE, ciphertext, _context(cluster_id, server))
    except InvalidTag:
        raise ConfigError(f"the keys of {server} are not sealed to this key") from None
    opened: dict[str, bytes] = msgpack.unpackb(plain)
    return opened


def _cipher(private: X25519PrivateKey, public: bytes, salt: bytes) -> ChaCha20Poly1305:
    try:
        shared = private.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError as error:
        raise ConfigError(f"not a public key to seal to: {error}") from error
    return ChaCha20Poly1305(HKDF(SHA256(), 32, salt, _INFO).derive(shared))


def _context(cluster_id: bytes, server: str) -> bytes:
    return cluster_id + server.encode()
