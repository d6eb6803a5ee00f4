"""Map-Requests of this agent: what is the same in all of them is encoded once."""

from wgmap.addresses import IPNetwork, host_prefix
from wgmap.lisp import codec
from wgmap.lisp.mark import MARK_BYTES, UNKNOWN, Mark
from wgmap.lisp.messages import Eid, MapRequest, RequestRecord
from wgmap_agent.engine.packets import host_in
from wgmap_agent.engine.types import Identity

_NONCE = slice(4, 12)  # RFC 9301, section 5.2


class Questions:
    """Writes questions for one prefix each. Their mark is the servers' to be filled in."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._frames: dict[tuple[int, bool], tuple[bytes, bytes, bytes]] = {}

    def write(self, target: IPNetwork, nonce: int, *, refresh: bool = False) -> bytes:
        """Write a question; ``refresh`` sets the s bit (a linearizable answer)."""
        frame = self._frames.get((target.version, refresh))
        if frame is None:
            frame = self._frames[target.version, refresh] = self._frame(target, refresh)
        head, middle, end = frame
        record = codec.encode_request_record(self._record(target))
        return b"".join((head, nonce.to_bytes(8), middle, record, end))

    def _frame(self, target: IPNetwork, refresh: bool) -> tuple[bytes, bytes, bytes]:
        """Return what stands before the nonce, between it and the record, and behind that."""
        data = codec.encode(self._question(target, refresh))
        record = codec.encode_request_record(self._record(target))
        middle = data[_NONCE.stop : len(data) - MARK_BYTES - len(record)]
        return data[: _NONCE.start], middle, data[-MARK_BYTES:]

    def _question(self, target: IPNetwork, refresh: bool) -> MapRequest:
        identity = self._identity
        own = next((one for one in identity.prefixes if one.version == target.version), None)
        return MapRequest(
            nonce=0,
            itr_rlocs=(identity.control_address,),
            records=(self._record(target),),
            source_eid=None if own is None else Eid(host_prefix(host_in(own)), identity.instance),
            smr_invoked=refresh,
            xtr=Mark(UNKNOWN, 0).xtr(),
        )

    def _record(self, target: IPNetwork) -> RequestRecord:
        return RequestRecord(Eid(target, self._identity.instance))
