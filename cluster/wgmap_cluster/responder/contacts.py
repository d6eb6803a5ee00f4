"""Answers operators who was told of whom: from subscriptions and pushes, in bounded steps."""

from collections.abc import Iterable, Iterator
from itertools import islice

from wgmap_cluster.feed import Contact, Known, WhoKnows
from wgmap_cluster.responder.pushes import Pushes
from wgmap_cluster.responder.subscriptions import Subscription, Subscriptions

MOST = 500  # in one answer; far below what a packet of the feed holds


class Contacts:
    """Reads what the announcer keeps."""

    def __init__(self, subscriptions: Subscriptions, pushes: Pushes) -> None:
        self._subscriptions = subscriptions
        self._pushes = pushes

    def answer(self, question: WhoKnows, now: float) -> Known:
        """Return the newest of those who were told, as the question wants them."""
        most = min(question.most, MOST)
        pairs = dict.fromkeys(self._pairs(question, most))
        found = (self._subscriptions.told(*pair, now) for pair in pairs)
        newest = sorted((told for told in found if told is not None), key=lambda told: -told.at)
        return Known(question.number, tuple(map(self._contact, newest[:most])))

    def _pairs(self, question: WhoKnows, most: int) -> Iterable[tuple[str, str]]:
        peer, other = question.peer, question.other
        if not peer:
            return islice(self._subscriptions.recent(), most)
        return [(peer, other), (other, peer)] if other else self._around(peer, most)

    def _around(self, peer: str, most: int) -> Iterator[tuple[str, str]]:
        """Yield who was told of a peer and of whom it was told itself.

        The latter as far as they were told of it in turn (as a rule they are), or it was of late.
        """
        for pair in islice(self._subscriptions.recent_of(peer), most):
            yield pair
            yield pair[::-1]
        yield from (pair for pair in self._subscriptions.recent() if pair[1] == peer)

    def _contact(self, told: Subscription) -> Contact:
        return Contact(told.agent, told.subject, told.at, self._state((told.subject, told.agent)))

    def _state(self, pair: tuple[str, str]) -> str:
        if self._pushes.is_out(pair):
            return "waiting"
        return "unheard" if self._pushes.was_unheard(pair) else "heard"
