"""Log lines for people and machines: one event a line, ``what happened key=value ...``.

Under journald the line starts with its priority (``<6>``) and carries no time, for the journal
has it already; elsewhere it starts with the local time. Private keys and raw bytes are never
shown: a value that is ``bytes`` and not a public key is written as its length.
"""

import json
import logging
import os
import re
import sys
from typing import Any, TextIO

from wgmap.wg.keys import PublicKey

MAX_VALUE = 400  # characters of one value
_PLAIN = re.compile(r"[A-Za-z0-9_.:/@%+,\[\]<>=-]+")
_PRIORITIES = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (0, 7))


def setup(program: str, *, verbose: bool = False, stream: TextIO | None = None) -> None:
    """Send all log lines of this process to ``stream`` (stderr); ``program`` names it in them."""
    out = stream if stream is not None else sys.stderr
    handler = logging.StreamHandler(out)
    handler.setFormatter(_Formatter(program, journal="JOURNAL_STREAM" in os.environ))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)  # libraries
    logging.getLogger("wgmap").setLevel(logging.DEBUG if verbose else logging.INFO)


class Log:
    """Events of one part; keyword arguments become ``key=value`` in the order given."""

    __slots__ = ("_logger",)

    def __init__(self, part: str) -> None:
        """Name the part, as in ``Log("replica.lease")``."""
        self._logger = logging.getLogger(f"wgmap.{part}")

    def debug(self, event: str, /, **values: Any) -> None:
        """Tell a detail that only a developer wants."""
        self._emit(logging.DEBUG, event, values)

    def info(self, event: str, /, **values: Any) -> None:
        """Tell that something normal and rare happened."""
        self._emit(logging.INFO, event, values)

    def warning(self, event: str, /, **values: Any) -> None:
        """Tell of what an operator may want to look at."""
        self._emit(logging.WARNING, event, values)

    def error(self, event: str, /, **values: Any) -> None:
        """Tell of what an operator must look at."""
        self._emit(logging.ERROR, event, values)

    def _emit(self, level: int, event: str, values: dict[str, Any]) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, "%s", render(event, values))


def render(event: str, values: dict[str, Any]) -> str:
    """Write an event and its values as one line."""
    return " ".join([_one_line(event), *(f"{key}={_value(v)}" for key, v in values.items())])


def _one_line(text: str) -> str:
    return text if text.isprintable() else json.dumps(text)[1:-1]


def _value(value: Any) -> str:
    if isinstance(value, bytes | bytearray) and not isinstance(value, PublicKey):
        return f"<{len(value)}-bytes>"
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    if len(text) > MAX_VALUE:
        text = text[:MAX_VALUE] + "..."
    return text if _PLAIN.fullmatch(text) else json.dumps(text)


class _Formatter(logging.Formatter):
    def __init__(self, program: str, *, journal: bool) -> None:
        super().__init__(datefmt="%Y-%m-%dT%H:%M:%S")
        self._program = program
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        if record.exc_info:
            text += " " + _value(self.formatException(record.exc_info)[-MAX_VALUE:])
        line = f"{record.name.removeprefix('wgmap.')}: {_one_line(text)}"
        if self._journal:
            priority = next(number for level, number in _PRIORITIES if record.levelno >= level)
            return f"<{priority}>{line}"
        stamp = f"{self.formatTime(record, self.datefmt)}.{int(record.msecs):03d}"
        return f"{stamp} {self._program}[{record.process}] {record.levelname.lower()} {line}"
