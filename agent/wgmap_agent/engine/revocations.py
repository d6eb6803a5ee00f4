"""Which revocations this agent knows of, and the keys that it never takes again.

Both are kept on disk. By the number of the last one servers tell the rest to an agent that was
away, also about peers that it never asks for. The keys keep out what a server says that has not
heard of the revocation (it is out of touch with the quorum, or the cluster came back from a
backup): that may be long after the number has passed, so they outlive the agent's run as well.
"""

from collections.abc import Iterable

from wgmap.lisp.mark import NOTHING_HELD, Mark
from wgmap.wg.keys import PublicKey

MAX_KEYS = 4096  # the oldest makes room


class Revocations:
    """The number of the last revocation that is known without a gap, and revoked keys."""

    def __init__(self, number: int | None, keys: Iterable[PublicKey] = ()) -> None:
        """Go on from what was saved; no number: nothing is held that could have been revoked."""
        self.number = number
        self._keys: dict[PublicKey, None] = {}
        self.remember(keys)
        self._is_saved = True

    def __contains__(self, key: object) -> bool:
        return key in self._keys

    @property
    def keys(self) -> tuple[PublicKey, ...]:
        """The keys, the oldest first."""
        return tuple(self._keys)

    def mark(self, incarnation: bytes) -> Mark:
        """Return what is told to a server of this incarnation."""
        return Mark(incarnation, NOTHING_HELD if self.number is None else self.number)

    def remember(self, keys: Iterable[PublicKey]) -> None:
        """Never take these keys again."""
        for key in keys:
            if key in self._keys:
                continue
            if len(self._keys) >= MAX_KEYS:
                del self._keys[next(iter(self._keys))]
            self._keys[key] = None
            self._is_saved = False

    def told(self, mark: Mark) -> None:
        """Take in the mark of a server's message.

        With ``since`` equal to ``number`` it is the server's own, told to who holds nothing or
        knows of more than there is (a cluster that came back from a backup).
        """
        before = self.number
        if before is None or mark.since == mark.number < before:
            self.number = mark.number
        elif mark.since <= before:
            self.number = max(before, mark.number)
        self._is_saved = self._is_saved and self.number == before

    def take_unsaved(self) -> bool:
        """Say whether something is to be saved, once."""
        unsaved, self._is_saved = not self._is_saved, True
        return unsaved
