"""Curve25519 keys as WireGuard writes them."""

import base64
import binascii
from typing import Self

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

KEY_BYTES = 32


class PublicKey(bytes):
    """A public key: 32 bytes; ``str`` is WireGuard's base64."""

    __slots__ = ()

    def __new__(cls, data: bytes) -> Self:
        """Take 32 raw bytes; raises ValueError."""
        if len(data) != KEY_BYTES:
            msg = f"a WireGuard key has {KEY_BYTES} bytes, not {len(data)}"
            raise ValueError(msg)
        return super().__new__(cls, data)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read base64 (44 characters); raises ValueError, also for what nobody's key can be."""
        key = cls(_decode(text))
        if not any(key):
            msg = "nobody's key is all zeros"
            raise ValueError(msg)
        return key

    def __str__(self) -> str:
        return base64.b64encode(self).decode()

    def __repr__(self) -> str:
        return f"PublicKey({self})"


class PrivateKey:
    """A private key; it is never shown by ``str`` or ``repr``."""

    __slots__ = ("_data", "public")

    def __init__(self, data: bytes) -> None:
        """Take 32 raw bytes; raises ValueError."""
        if len(data) != KEY_BYTES:
            msg = f"a WireGuard key has {KEY_BYTES} bytes, not {len(data)}"
            raise ValueError(msg)
        self._data = data
        key = X25519PrivateKey.from_private_bytes(data)
        self.public = PublicKey(key.public_key().public_bytes_raw())

    @classmethod
    def generate(cls) -> Self:
        """Make a new key from the operating system's randomness."""
        return cls(X25519PrivateKey.generate().private_bytes_raw())

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read base64 (44 characters); raises ValueError."""
        return cls(_decode(text))

    def reveal(self) -> bytes:
        """Return the 32 secret bytes, for a device or a key file."""
        return self._data

    def encode(self) -> str:
        """Return the secret in WireGuard's base64, for a key file."""
        return base64.b64encode(self._data).decode()

    def __repr__(self) -> str:
        return "PrivateKey((hidden))"


def _decode(text: str) -> bytes:
    try:
        data = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError) as error:
        msg = "a WireGuard key is 44 characters of base64"
        raise ValueError(msg) from error
    if len(data) != KEY_BYTES:
        msg = f"a WireGuard key has {KEY_BYTES} bytes, not {len(data)}"
        raise ValueError(msg)
    return data
