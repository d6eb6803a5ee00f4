"""WireGuard's handshake and transport, both sides, without a device.

A client that only asks and registers needs no interface: with this a process holds thousands of
tunnels to real devices, each with a key of its own. Source: "WireGuard: Next Generation Kernel
Network Tunnel", sections 5.4.1 to 5.4.6. Not for production: nothing is secret here, cookie replies
are not understood, and an initiation that is repeated is answered again.
"""

import hashlib
import hmac
import os
import struct
from copy import copy
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from wgmap.wg.keys import PrivateKey, PublicKey

INITIATION, RESPONSE, TRANSPORT = 1, 2, 4
INITIATION_BYTES, RESPONSE_BYTES = 148, 92
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


class _State:
    """The chaining key and the hash that both sides compute alike."""

    def __init__(self, responder: PublicKey, ephemeral: bytes) -> None:
        """Begin with the responder's key and the initiator's ephemeral one."""
        self.hash = _hash(_hash(_CONSTRUCTION, _IDENTIFIER), responder)
        self.chain = _CONSTRUCTION
        self.ephemeral(ephemeral)

    def ephemeral(self, public: bytes) -> None:
        """Take in an ephemeral key."""
        (self.chain,) = _derive(self.chain, public, 1)
        self.hash = _hash(self.hash, public)

    def key(self, shared: bytes) -> ChaCha20Poly1305:
        """Take in a shared secret; return the cipher of the next field."""
        self.chain, key = _derive(self.chain, shared, 2)
        return ChaCha20Poly1305(key)

    def seal(self, shared: bytes, plain: bytes) -> bytes:
        """Encrypt a field."""
        sealed = self.key(shared).encrypt(bytes(12), plain, self.hash)
        self.hash = _hash(self.hash, sealed)
        return sealed

    def open(self, shared: bytes, sealed: bytes) -> bytes:
        """Decrypt a field; raises NoiseError."""
        try:
            plain = self.key(shared).decrypt(bytes(12), sealed, self.hash)
        except InvalidTag as error:
            raise NoiseError("not genuine") from error
        self.hash = _hash(self.hash, sealed)
        return plain

    def responded(self, public: bytes, *shared: bytes) -> ChaCha20Poly1305:
        """Take in the response's ephemeral key and what follows; return the cipher of its end."""
        self.ephemeral(public)
        for secret in shared:
            (self.chain,) = _derive(self.chain, secret, 1)
        self.chain, mixed, key = _derive(self.chain, bytes(32), 3)  # no preshared key
        self.hash = _hash(self.hash, mixed)
        return ChaCha20Poly1305(key)

    def ends(self) -> tuple[ChaCha20Poly1305, ChaCha20Poly1305]:
        """Return the ciphers from the initiator and to it."""
        there, back = _derive(self.chain, b"", 2)
        return ChaCha20Poly1305(there), ChaCha20Poly1305(back)


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
        self._state = _State(self.peer, ephemeral)
        shared = _exchange(self._ephemeral, self.peer)
        static = self._state.seal(shared, bytes(self.own.public))
        stamp = self._state.seal(_exchange(self._static, self.peer), _tai64n(self.at))
        head = struct.pack("<B3xI", INITIATION, self.index) + ephemeral + static + stamp
        self.message = head + _mac(self.peer, head) + bytes(16)

    def finish(self, response: bytes) -> Session:
        """Read the response; raises NoiseError."""
        if len(response) != RESPONSE_BYTES or response[0] != RESPONSE:
            raise NoiseError("no response")
        peer_index, index = struct.unpack_from("<II", response, 4)
        if index != self.index:
            raise NoiseError("of another handshake")
        ephemeral, empty = response[12:44], response[44:60]
        state = copy(self._state)  # a wrong response is no end: the right one may still come
        shared = (_exchange(private, ephemeral) for private in (self._ephemeral, self._static))
        try:
            state.responded(ephemeral, *shared).decrypt(bytes(12), empty, state.hash)
        except InvalidTag as error:
            raise NoiseError("not genuine") from error
        sending, receiving = state.ends()
        return Session(self.index, peer_index, sending, receiving)


@dataclass(frozen=True, slots=True)
class Answered:
    """An initiation that was answered: who it was from, what to send, and the tunnel."""

    initiator: PublicKey
    response: bytes
    session: Session


def answer(own: PrivateKey, initiation: bytes, index: int) -> Answered:
    """Answer an initiation as the other side; ``index``: ours. Raises NoiseError."""
    if len(initiation) != INITIATION_BYTES or initiation[0] != INITIATION:
        raise NoiseError("no initiation")
    (peer_index,) = struct.unpack_from("<I", initiation, 4)
    theirs, static, stamp = initiation[8:40], initiation[40:88], initiation[88:116]
    private = X25519PrivateKey.from_private_bytes(own.reveal())
    state = _State(own.public, theirs)
    initiator = PublicKey(state.open(_exchange(private, theirs), static))
    state.open(_exchange(private, initiator), stamp)
    made = X25519PrivateKey.generate()
    ephemeral = made.public_key().public_bytes_raw()
    shared = (_exchange(made, public) for public in (theirs, initiator))
    empty = state.responded(ephemeral, *shared).encrypt(bytes(12), b"", state.hash)
    head = struct.pack("<B3xII", RESPONSE, index, peer_index) + ephemeral + empty
    receiving, sending = state.ends()
    response = head + _mac(initiator, head) + bytes(16)
    return Answered(initiator, response, Session(index, peer_index, sending, receiving))


def _tai64n(at: float) -> bytes:
    return struct.pack(">QI", _TAI64 + int(at), int(at % 1 * 1e9))


def _mac(peer: bytes, message: bytes) -> bytes:
    key = _hash(b"mac1----", peer)
    return hashlib.blake2s(message, digest_size=16, key=key).digest()
