"""A history's file: JSON lines, one record each, in the order in which they were over."""

from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Self, TextIO

from pydantic import TypeAdapter, ValidationError

from wgmap.errors import ConfigError
from wgmap_chaos.history.history import History
from wgmap_chaos.history.records import Record

NAME = "history.jsonl"
_READER: TypeAdapter[Record] = TypeAdapter(Record)


class Recorder:
    """Keeps records in memory and in a file; what was written outlives a run that breaks off."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.history = History()
        self._file: TextIO = path.open("w")
        # Two threads that write text at once while its buffer is flushed write freed memory
        # (CPython issue 119506, not cured in 3.11).
        self._lock = Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def add(self, record: Record) -> None:
        """Take a record in; may be called in any thread."""
        line = record.model_dump_json(exclude_defaults=False) + "\n"
        with self._lock:
            self.history.add(record)
            self._file.write(line)


def read(path: Path) -> History:
    """Read a history; raises ConfigError naming the line that is wrong."""
    history = History()
    for record in records(path):
        history.add(record)
    return history


def records(path: Path) -> Iterator[Record]:
    """Yield what stands in a file; raises ConfigError naming the line that is wrong."""
    try:
        with path.open() as file:
            for number, line in enumerate(file, start=1):
                yield _record(path, number, line)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error


def _record(path: Path, number: int, line: str) -> Record:
    try:
        return _READER.validate_json(line)
    except ValidationError as error:
        raise ConfigError(f"{path}, line {number}: {error.errors()[0]['msg']}") from error
