"""``wgmap-server check-state``: what is on disk, for people and programs."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wgmap.errors import NotFoundError, WgmapError
from wgmap_cluster.raft.inspect import check_state
from wgmap_cluster.raft.interface import LogError


@dataclass(frozen=True, slots=True)
class Report:
    """What was found; ``sound``: a server would start from it."""

    sound: bool
    values: dict[str, Any]
    text: str


def check(directory: Path) -> Report:
    """Check a state directory; raises NotFoundError, and WgmapError where it cannot be read."""
    if not directory.is_dir():
        raise NotFoundError(f"{directory}: no such directory")
    try:
        state = check_state(directory)
    except LogError as error:
        raise WgmapError(str(error)) from error
    values = dataclasses.asdict(state)
    lines = [
        f"{name.replace('_', ' ')}: {_text(value)}"
        for name, value in values.items()
        if name not in ("empty", "problems")
    ]
    if state.empty:
        lines = ["empty: a server would start from its bootstrap section or join"]
    lines += [f"PROBLEM: {problem}" for problem in state.problems]
    return Report(not state.problems, values, "\n".join(lines))


def _text(value: object) -> str:
    if isinstance(value, tuple | list):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)
