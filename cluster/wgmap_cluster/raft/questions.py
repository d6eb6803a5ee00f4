"""Questions of one server to another beside the log: nothing of the log depends on an answer."""

from collections.abc import Callable

from wgmap_cluster.raft.library import Library
from wgmap_cluster.raft.messages import Ask, Told

MAX_OUT = 64  # questions of this server; more are not asked
MAX_DATA_BYTES = 64 * 1024  # of a question, and of an answer


class Questions:
    """Those of this server that wait for an answer, and where those of others go."""

    def __init__(self, node: Library) -> None:
        self._node = node
        self._out: dict[int, tuple[str, Callable[[bytes], None]]] = {}
        self._last: int | None = None
        self.asked: Callable[[str, Ask], None] = lambda _name, _message: None

    def ask(self, name: str, data: bytes, told: Callable[[bytes], None]) -> int | None:
        """Ask a server; ``told`` gets its answer. Returns the question's number, None: too many."""
        if len(self._out) >= MAX_OUT or len(data) > MAX_DATA_BYTES:
            return None
        if self._last is None:  # unique to this incarnation: an answer may be to the one before
            self._last = self._node.rng.getrandbits(48) << 14
        self._last += 1
        self._out[self._last] = (name, told)
        self._node.send(name, Ask(self._last, data))
        return self._last

    def forget(self, number: int) -> None:
        """Wait no longer for an answer."""
        self._out.pop(number, None)

    def answer(self, name: str, number: int, data: bytes) -> None:
        """Answer another server's question; one that is too long stays without an answer."""
        if len(data) <= MAX_DATA_BYTES:
            self._node.send(name, Told(number, data))

    def on_ask(self, name: str, message: Ask) -> None:
        """Take in a question."""
        if len(message.data) <= MAX_DATA_BYTES:
            self.asked(name, message)

    def on_told(self, name: str, message: Told) -> None:
        """Take in an answer; one that nobody waits for, or another server's, is dropped."""
        waiting = self._out.get(message.id)
        if waiting is not None and waiting[0] == name:
            del self._out[message.id]
            waiting[1](message.data)
