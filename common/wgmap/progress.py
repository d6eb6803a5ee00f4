"""What a command waits for, on the last line of a terminal once it takes over a second.

It is for people: it goes to the standard error where that is a terminal, and nowhere else. So
pipes, logs and ``--json`` never see it. When the command has something to say the line is gone.
"""

import os
import sys
import time
from collections.abc import Callable
from threading import Event, Thread
from types import TracebackType
from typing import Self, TextIO

QUIET_S = 1.0  # no word before
AGAIN_S = 0.2
_WIDTH = 80  # where a terminal does not tell its own
_CLEAR = "\r\033[K"


class Progress:
    """Draws while it is entered; what is waited for may change meanwhile."""

    def __init__(self, name: str, stream: TextIO | None = None) -> None:
        """``name``: the program's; ``stream``: in place of the standard error."""
        self._name = name
        self._stream: TextIO | None = sys.stderr if stream is None else stream  # None: it is shut
        self._look: Callable[[], str] = lambda: "waiting"
        self._began = time.monotonic()
        self._ended = Event()
        self._thread: Thread | None = None

    def __enter__(self) -> Self:
        """Begin, where there is a terminal."""
        stream = self._stream
        if stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb":
            self._thread = Thread(target=self._draw, args=(stream,), name="progress", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End: see over()."""
        self.over()

    def say(self, text: str) -> None:
        """Say what is waited for from now on; "" shows nothing."""
        self.watch(lambda: text)

    def watch(self, look: Callable[[], str]) -> None:
        """Have asked what is waited for whenever it is drawn: beside the command, in a thread."""
        self._look = look

    def tell(self, done: int, total: int | None, what: str) -> None:
        """Say how far it is; ``total`` is None where nobody knows."""
        of = "" if total is None else f" of {total:,}"
        self.say(f"{done:,}{of} {what}")

    def over(self) -> None:
        """Take the line away, for good: whoever writes next begins at its start."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _draw(self, stream: TextIO) -> None:
        drawn = False
        wait = QUIET_S
        while not self._ended.wait(wait):
            wait, text = AGAIN_S, self._look()
            if text or drawn:
                self._write(stream, _CLEAR + (self._line(stream, text) if text else ""))
            drawn = bool(text)
        if drawn:
            self._write(stream, _CLEAR)

    def _line(self, stream: TextIO, text: str) -> str:
        took = time.monotonic() - self._began
        line = f"{self._name}: {text} ({took:.0f} s)"
        return line[: _columns(stream) - 1]  # a longer one could not be taken away

    def _write(self, stream: TextIO, text: str) -> None:
        try:
            stream.write(text)
            stream.flush()
        except (OSError, ValueError):  # the terminal is gone; the command goes on
            self._ended.set()


def _columns(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or _WIDTH
    except OSError:
        return _WIDTH
