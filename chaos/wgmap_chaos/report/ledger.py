"""What is kept of a run for ever: one line of JSON, from which all tables are made."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from wgmap.errors import ConfigError
from wgmap_chaos.history.history import History
from wgmap_chaos.history.records import Run
from wgmap_chaos.judges.verdict import Verdict
from wgmap_chaos.report import figures
from wgmap_chaos.report.figures import Gap

NAME = "entry.jsonl"


class Judged(BaseModel):
    """What one judge said."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    judge: str
    word: str
    looked_at: int


class Entry(BaseModel):
    """A line."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")

    run: Run
    faults: int
    calls: int
    verdicts: tuple[Judged, ...]
    broke_off: str = ""  # why there is no verdict
    gaps: tuple[Gap, ...]

    @property
    def held(self) -> bool:
        """Whether all judges said so."""
        return bool(self.verdicts) and all(one.word == "held" for one in self.verdicts)


def entry(history: History, verdicts: Sequence[Verdict], broke_off: str = "") -> Entry:
    """Return what is kept of a run; ``broke_off``: why it was not judged."""
    judged = tuple(Judged(judge=v.judge, word=v.word, looked_at=v.looked_at) for v in verdicts)
    return Entry(
        run=history.run,
        faults=len(history.faults),
        calls=len(history.calls),
        verdicts=judged,
        broke_off=broke_off,
        gaps=tuple(figures.gaps(history)),
    )


def write(path: Path, one: Entry) -> None:
    """Write one line; raises OSError."""
    path.write_text(one.model_dump_json() + "\n")


def read(paths: Iterable[Path]) -> list[Entry]:
    """Read lines of files; raises ConfigError naming the one that is wrong."""
    found = []
    for path in paths:
        try:
            lines = path.read_text().splitlines()
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}") from error
        for number, line in enumerate(lines, start=1):
            try:
                found.append(Entry.model_validate_json(line))
            except ValidationError as error:
                raise ConfigError(f"{path}, line {number}: {error.errors()[0]['msg']}") from error
    return found
