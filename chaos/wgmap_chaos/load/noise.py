"""WireGuard's handshake and transport as the side that initiates, without a device.

A client that only asks and registers needs no interface: with this a process holds hundreds of
control tunnels to real servers, each with a key of its own. Source: "WireGuard: Next Generation
Kernel Network Tunnel", sections 5.4.1 to 5.4.6. Not for production: nothing is secret here, cookie
replies are not understood, and nobody can initiate towards us.
"""

import hashlib
import hmac
import os
import struct
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from wgmap.wg.keys import PrivateKey, PublicKey

INITIATION, RESPONSE, TRANSPORT = 1, 2, 4
RESPONSE_BYTES = 92
_CONSTRUCTION = hashlib.blake2s(b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s").digest()
_IDENTIFIER = b"WireGuard v1 zx2c4 Jason@zx2c4.com"
_TAI64 = 1 << 62  # TAI64's name for the second 0
_TRANSPORT = struct.Struct("<B3xIQ")


class NoiseError(Exception):
    """A message is not for us, or not genuine."""


def _hash(*parts: bytes) -> bytes:
    return hashlib.blake2s(b"".join(parts)).digest()


def _derive(key: bytes, data: bytes, count: int) -> list[bytes]:
    secret = hmac.digest(key, data, "blake2s")
    derived: list[bytes] = []
    last = b""
    for number in range(1, count + 1):
        last = hmac.digest(secret, last + bytes([number]), "blake2s")
        derived.append(last)
    return derived


def _exchange(private: X25519PrivateKey, public: bytes) -> bytes:
    return private.exchange(X25519PublicKey.from_public_bytes(public))


@dataclass
class Session:
    """A tunnel that stands: packets in and out."""

    index: int  # ours
    peer_index: int
    sending: ChaCha20Poly1305
    receiving: ChaCha20Poly1305
    counter: int = 0

    def seal(self, packet: bytes) -> bytes:
        """Return the datagram that carries an IP packet; b"" makes a keepalive."""
        number, self.counter = self.counter, self.counter + 1
        padded = packet + bytes(-len(packet) % 16)
        header = _TRANSPORT.pack(TRANSPORT, self.peer_index, number)
        return header + self.sending.encrypt(_nonce(number), padded, None)

    def open(self, datagram: bytes) -> bytes:
        """Return the IP packet in a datagram, still padded; raises NoiseError."""
        try:
            kind, index, number = _TRANSPORT.unpack_from(datagram)
            if (kind, index) != (TRANSPORT, self.index):
                raise NoiseError("of another session")
            return self.receiving.decrypt(_nonce(number), datagram[_TRANSPORT.size :], None)
        except (struct.error, InvalidTag) as error:
            raise NoiseError("not genuine") from error


def _nonce(number: int) -> bytes:
    return bytes(4) + number.to_bytes(8, "little")


@dataclass
class Handshake:
    """One initiation and what is needed to understand its response.

    ``at`` (seconds) must be greater than that of any initiation of this key before.
    """

    own: PrivateKey
    peer: PublicKey
    at: float
    index: int = field(default_factory=lambda: int.from_bytes(os.urandom(4)))

    def __post_init__(self) -> None:
        """Make the message."""
        self._static = X25519PrivateKey.from_private_bytes(self.own.reveal())
        self._ephemeral = X25519PrivateKey.generate()
        ephemeral = self._ephemeral.public_key().public_bytes_raw()
        self._hash = _hash(
            _hash(_CONSTRUCTION, _IDENTIFIER),
            self.peer,
        )
        (self._chain,) = _derive(_CONSTRUCTION, ephemeral, 1)
        self._hash = _hash(self._hash, ephemeral)
        static = self._sealed(_exchange(self._ephemeral, self.peer), bytes(self.own.public))
        stamp = self._sealed(_exchange(self._static, self.peer), _tai64n(self.at))
        head = struct.pack("<B3xI", INITIATION, self.index) + ephemeral + static + stamp
        self.message = head + _mac(self.peer, head) + bytes(16)

    def _sealed(self, shared: bytes, plain: bytes) -> bytes:
        self._chain, key = _derive(self._chain, shared, 2)
        sealed = ChaCha20Poly1305(key).encrypt(bytes(12), plain, self._hash)
        self._hash = _hash(self._hash, sealed)
        return sealed

    def finish(self, response: bytes) -> Session:
        """Read the response; raises NoiseError."""
        if len(response) != RESPONSE_BYTES or response[0] != RESPONSE:
            raise NoiseError("no response")
        peer_index, index = struct.unpack_from("<II", response, 4)
        if index != self.index:
            raise NoiseError("of another handshake")
        ephemeral, empty = response[12:44], response[44:60]
        (chain,) = _derive(self._chain, ephemeral, 1)
        for private in (self._ephemeral, self._static):
            (chain,) = _derive(chain, _exchange(private, ephemeral), 1)
        chain, mixed, key = _derive(chain, bytes(32), 3)  # no preshared key
        try:
            seen = _hash(_hash(self._hash, ephemeral), mixed)
            ChaCha20Poly1305(key).decrypt(bytes(12), empty, seen)
        except InvalidTag as error:
            raise NoiseError("not genuine") from error
        sending, receiving = _derive(chain, b"", 2)
        return Session(
            self.index, peer_index, ChaCha20Poly1305(sending), ChaCha20Poly1305(receiving)
        )


def _tai64n(at: float) -> bytes:
    return struct.pack(">QI", _TAI64 + int(at), int(at % 1 * 1e9))


def _mac(peer: bytes, message: bytes) -> bytes:
    key = _hash(b"mac1----", peer)
    return hashlib.blake2s(message, digest_size=16, key=key).digest()
