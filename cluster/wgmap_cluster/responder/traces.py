"""Traced requests: what became of them is told to who asked (``wgmap.lisp.mark``), bounded.

A report goes out when the push to the other side is acknowledged, when that took too long, or at
once where nobody was pushed to. It is sent once: an operator who gets none asks again.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from wgmap.lisp.codec import encode
from wgmap.lisp.mark import Report
from wgmap.lisp.messages import MapNotify
from wgmap_cluster.feed import Source
from wgmap_cluster.responder.actions import Action, Send
from wgmap_cluster.responder.lookup import Asked

MAX_TRACES = 64  # that wait for an acknowledgement; more are reported at once
PATIENCE_S = 1.0
_MAP_NOTIFY = 4  # the type in the first four bits
_NONCE = slice(4, 12)


@dataclass(frozen=True, slots=True)
class _Trace:
    nonce: int  # of the question
    reply_to: Source
    index: int
    came: float  # and the push was sent
    pushed_to: str


class Traces:
    """The traced requests whose push is out, by the nonce of that."""

    def __init__(self) -> None:
        self._out: dict[int, _Trace] = {}  # in the order of their coming

    def __len__(self) -> int:
        return len(self._out)

    def begin(
        self, asked: Asked, index: int, actions: Iterable[Action], now: float
    ) -> list[Action]:
        """Take in a traced request, and what is done about it; ``index``: of the tables."""
        nonce, reply_to = asked.request.nonce, asked.reply_to
        push = next((one for one in actions if _is_push(one)), None)
        if not isinstance(push, Send):
            return [_report(nonce, reply_to, Report(index, None, None))]
        trace = _Trace(nonce, reply_to, index, now, push.destination[0])
        if len(self._out) >= MAX_TRACES:
            return [_end(trace, None)]
        self._out[int.from_bytes(push.datagram[_NONCE])] = trace
        return []

    def acknowledged(self, nonce: int, address: str, now: float) -> list[Action]:
        """Take in a Map-Notify-Ack."""
        trace = self._out.get(nonce)
        if trace is None or trace.pushed_to != address:
            return []
        del self._out[nonce]
        return [_end(trace, now)]

    def give_up(self, now: float) -> list[Action]:
        """Report those whose push was not acknowledged in time."""
        late = [nonce for nonce, one in self._out.items() if one.came + PATIENCE_S <= now]
        return [_end(self._out.pop(nonce), None) for nonce in late]

    def next_due(self) -> float | None:
        """Return when give_up() has something to do."""
        first = next(iter(self._out.values()), None)
        return None if first is None else first.came + PATIENCE_S


def _is_push(action: Action) -> bool:
    return isinstance(action, Send) and action.datagram[0] >> 4 == _MAP_NOTIFY


def _end(trace: _Trace, acknowledged: float | None) -> Send:
    after = None if acknowledged is None else acknowledged - trace.came
    report = Report(trace.index, 0.0, after)
    return _report(trace.nonce, trace.reply_to, report)


def _report(nonce: int, reply_to: Source, report: Report) -> Send:
    return Send(reply_to, encode(MapNotify(nonce, (), xtr=report.xtr())))
