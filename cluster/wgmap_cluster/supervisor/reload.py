"""A configuration that changed under a running server, and ``wgmap-server reload``."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from wgmap.config import load
from wgmap.errors import ConfigError, WgmapError
from wgmap_cluster.config import ServerConfig

OUTCOME_NAME = "reload.json"
PATIENCE_S = 60.0
_POLL_S = 0.05


def check(path: Path, running: ServerConfig) -> ServerConfig:
    """Read the configuration anew; ConfigError where it is wrong or wants a restart."""
    new = load(path, ServerConfig)
    changed = [
        name
        for name, differs in (
            ("server.name", new.server.name != running.server.name),
            ("server.state_dir", new.server.state_dir != running.server.state_dir),
            ("control", new.control != running.control),
            ("mesh", new.mesh != running.mesh),
        )
        if differs
    ]
    if changed:
        raise ConfigError(f"{path}: {', '.join(changed)}: changed; this wants a restart")
    return new


class Outcomes:
    """What became of the reloads of a server, in a file of its state directory.

    ``number`` rises with each; ``error`` is that of the last one.
    """

    def __init__(self, state_dir: Path) -> None:
        """Write that there was none yet."""
        self._path = state_dir / OUTCOME_NAME
        self._number = 0
        self._write(None)

    def tell(self, error: str | None) -> None:
        """Note how a reload went."""
        self._number += 1
        self._write(error)

    def _write(self, error: str | None) -> None:
        temporary = self._path.with_suffix(".new")
        outcome = {"pid": os.getpid(), "number": self._number, "error": error}
        temporary.write_text(json.dumps(outcome) + "\n")
        temporary.replace(self._path)

    def close(self) -> None:
        """Remove the file: nobody is there to reload."""
        self._path.unlink(missing_ok=True)


def reload(path: Path) -> None:
    """Let the server of a configuration take it over; returns when it has.

    Raises ConfigError (it is wrong, or wants a restart) and WgmapError (no server, too slow).
    """
    state_dir = load(path, ServerConfig).server.state_dir
    before = _outcome(state_dir)
    try:
        os.kill(before["pid"], signal.SIGHUP)
    except OSError as error:
        raise WgmapError(f"{state_dir}: its server: {error.strerror}") from error
    end = time.monotonic() + PATIENCE_S
    while (after := _outcome(state_dir))["number"] == before["number"]:
        if time.monotonic() > end:
            raise WgmapError(f"not taken over within {PATIENCE_S:.0f} s: see the server's log")
        time.sleep(_POLL_S)
    if after["error"] is not None:
        raise ConfigError(after["error"])


def _outcome(state_dir: Path) -> dict[str, Any]:
    path = state_dir / OUTCOME_NAME
    try:
        outcome: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise WgmapError(f"{state_dir}: no server runs on it") from error
    except (OSError, ValueError) as error:
        raise WgmapError(f"{path}: {error}") from error
    return outcome
