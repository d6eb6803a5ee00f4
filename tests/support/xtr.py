"""A plain LISP client that behaves as an Open Overlay Router xTR does.

What it insists on, and what it cannot bear, is read off that program (its ``lisp_xtr.c``,
``lisp_tr.c`` and ``hmac.c``), not off the RFCs:

- a Map-Register carries one record, algorithm 1 with all 20 bytes of HMAC-SHA-1 over the whole
  message, M set, and a new random nonce with every attempt;
- a Map-Notify counts only with the nonce of an attempt, in the same form, for an EID of its own;
- a Map-Request is encapsulated (ports 4342), has one record, and its source EID;
- a Map-Reply for what is in the cache already is used only where its EID is exactly that entry's;
- a locator with a key (LCAF 11) is a crash, a TTL over 68 minutes is mis-timed;
- an SMR wants one record, which is exactly an EID of its own; it answers with an encapsulated
  Map-Request with the s bit for the entry that holds the source EID, and gives the entry up
  after three of them without an answer.

Times are shorter than there (3 s and 60 s): nothing of the above hangs on them.
"""

import hashlib
import hmac
import random
import select
import socket
from types import TracebackType
from typing import Self

from wgmap.addresses import IPAddress, IPNetwork, host_prefix
from wgmap.clock import now
from wgmap.lisp.codec import decode, encode
from wgmap.lisp.messages import (
    LISP_PORT,
    AuthAlgorithm,
    Authentication,
    Eid,
    Encapsulated,
    Locator,
    LocatorForm,
    MapNotify,
    MapRegister,
    MapReply,
    MapRequest,
    Record,
    RequestRecord,
)

AGAIN_S = 0.5
SMR_ATTEMPTS = 3
MOST_TTL_MIN = 68  # beyond that its timer wraps
_DIGEST = slice(16, 36)


class CrashError(Exception):
    """The program would have died, or worked with nonsense."""


def locator(address: IPAddress, priority: int = 1, weight: int = 100) -> Locator:
    """A locator as it registers one."""
    return Locator(address, priority=priority, weight=weight, local=True, form=LocatorForm.PLAIN)


class Xtr:
    """One tunnel router; ``address`` is its RLOC, and port 4342 there is its control socket."""

    def __init__(
        self, address: IPAddress, eid: IPNetwork, secret: bytes, server: tuple[str, int]
    ) -> None:
        self.address, self.eid, self.secret, self.server = address, eid, secret, server
        self.cache: dict[IPNetwork, Record] = {}
        self.solicited = 0
        self._asked: dict[int, IPNetwork | None] = {}  # nonce -> the entry it renews
        self._registers: set[int] = set()
        self._random = random.Random(str(address))  # nonces of a test
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((str(address), LISP_PORT))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()

    # ------------------------------------------------------------------------------ registers

    def register(self, *locators: Locator, ttl_min: int = 1440, wait_s: float = 10.0) -> bool:
        """Register until notified; False where that does not come in time."""
        record = Record(Eid(self.eid), locators or (locator(self.address),), ttl_min)
        end = now() + wait_s
        while now() < end:
            nonce = self._random.getrandbits(64)
            self._registers.add(nonce)
            self._send(self._signed(MapRegister(nonce, (record,), _blank(), proxy_reply=True)))
            if self._hear(min(now() + AGAIN_S, end), MapNotify):
                self._registers.clear()
                return True
        return False

    def _signed(self, message: MapRegister) -> bytes:
        data = encode(message)
        return data[:16] + hmac.digest(self.secret, data, hashlib.sha1) + data[36:]

    def _notified(self, data: bytes, message: MapNotify) -> bool:
        if message.nonce not in self._registers:
            return False
        zeroed = data[:16] + bytes(20) + data[36:]
        form = (message.authentication.algorithm, len(message.authentication.data))
        good = form == (AuthAlgorithm.HMAC_SHA1, 20) and data[_DIGEST] == hmac.digest(
            self.secret, zeroed, hashlib.sha1
        )
        return good and all(record.eid.prefix == self.eid for record in message.records)

    # -------------------------------------------------------------------------------- lookups

    def look_up(self, eid: IPAddress, wait_s: float = 10.0) -> Record | None:
        """Return the mapping of an EID from the cache, or ask for it."""
        end = now() + wait_s
        while (found := self._cached(eid)) is None and now() < end:
            self._ask(Eid(host_prefix(eid)), None)
            self._hear(min(now() + AGAIN_S, end), MapReply)
        return found

    def _cached(self, eid: IPAddress) -> Record | None:
        holding = [prefix for prefix in self.cache if eid in prefix]
        return self.cache[max(holding, key=lambda one: one.prefixlen)] if holding else None

    def _ask(self, eid: Eid, entry: IPNetwork | None) -> None:
        nonce = self._random.getrandbits(64)
        self._asked[nonce] = entry
        own = self.eid.network_address
        request = MapRequest(
            nonce,
            (self.address,),
            (RequestRecord(eid),),
            source_eid=Eid(host_prefix(own)),
            smr_invoked=entry is not None,
        )
        inner = own if own.version == eid.prefix.version else self.address
        target = eid.prefix.network_address
        self._send(encode(Encapsulated(inner, LISP_PORT, target, LISP_PORT, request)))

    def _replied(self, message: MapReply) -> bool:
        if message.nonce not in self._asked:
            return False
        entry = self._asked.pop(message.nonce)
        for record in message.records if entry is None else message.records[:1]:
            self._check(record)
            if entry is None or record.eid.prefix in self.cache:
                self.cache[record.eid.prefix] = record
        return True

    @staticmethod
    def _check(record: Record) -> None:
        if any(one.key is not None or one.form is not LocatorForm.PLAIN for one in record.locators):
            raise CrashError(f"a locator with a key: {record}")
        if record.ttl_min > MOST_TTL_MIN:
            raise CrashError(f"a TTL of {record.ttl_min} minutes")

    # ------------------------------------------------------------------------ solicit-requests

    def _requested(self, message: MapRequest) -> bool:
        if len(message.records) != 1:
            raise CrashError(f"{len(message.records)} records in a Map-Request")
        source = message.source_eid
        own = message.records[0].eid.prefix == self.eid
        if not message.smr or not own or source is None:
            return False
        held = [one for one in self.cache if source.prefix.network_address in one]
        if not held:
            return False
        self.solicited += 1
        self._renew(max(held, key=lambda one: one.prefixlen))
        return True

    def _renew(self, entry: IPNetwork) -> None:
        for _ in range(SMR_ATTEMPTS):
            self._ask(Eid(entry), entry)
            if self._hear(now() + AGAIN_S, MapReply):
                return
        del self.cache[entry]

    # ----------------------------------------------------------------------------- the socket

    def until_solicited(self, wait_s: float = 10.0) -> bool:
        """Wait for an SMR, and for what follows from it."""
        return self._hear(now() + wait_s, MapRequest)

    def _hear(self, end: float, wanted: type) -> bool:
        """Take in what comes until the wanted message was of use; False: not by then."""
        while (left := end - now()) > 0 and select.select([self._socket], [], [], left)[0]:
            data = self._socket.recv(65535)
            message = decode(data)
            used = (
                (isinstance(message, MapNotify) and self._notified(data, message))
                or (isinstance(message, MapReply) and self._replied(message))
                or (isinstance(message, MapRequest) and self._requested(message))
            )
            if used and isinstance(message, wanted):
                return True
        return False

    def _send(self, data: bytes) -> None:
        self._socket.sendto(data, self.server)


def _blank() -> Authentication:
    return Authentication(0, AuthAlgorithm.HMAC_SHA1, bytes(20))
