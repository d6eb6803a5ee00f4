"""Which revocations this agent knows of, and the keys that it never takes again.

The number of the last one is kept on disk: servers tell the rest to an agent that was away, also
about peers that it never asks for. The keys are kept in memory only: after a restart nothing but
an answer without authority can bring one back.
"""

from wgmap.lisp.mark import NOTHING_HELD, Mark
from wgmap.wg.keys import PublicKey

MAX_KEYS = 4096  # the oldest makes room


class Revocations:
    """The number of the last revocation that is known without a gap, and revoked keys."""

    def __init__(self, number: int | None) -> None:
        """Go on from the saved number; None: nothing is held that could have been revoked."""
        self.number = number
        self._keys: dict[PublicKey, None] = {}

    def __contains__(self, key: object) -> bool:
        return key in self._keys

    def mark(self, incarnation: bytes) -> Mark:
        """Return what is told to a server of this incarnation."""
        return Mark(incarnation, NOTHING_HELD if self.number is None else self.number)

    def remember(self, keys: set[PublicKey]) -> None:
        """Never take these keys again."""
        for key in keys - self._keys.keys():
            if len(self._keys) >= MAX_KEYS:
                del self._keys[next(iter(self._keys))]
            self._keys[key] = None

    def told(self, mark: Mark) -> bool:
        """Take in the mark of a server's message; says whether the number is another one now.

        With ``since`` equal to ``number`` it is the server's own, told to who holds nothing or
        knows of more than there is (a cluster that came back from a backup).
        """
        before = self.number
        if before is None or mark.since == mark.number < before:
            self.number = mark.number
        elif mark.since <= before:
            self.number = max(before, mark.number)
        return self.number != before
