"""The agent's two private keys: made here, kept here, never shown."""

from pathlib import Path

from wgmap.errors import ConfigError
from wgmap.wg import keyfile
from wgmap.wg.keys import PrivateKey
from wgmap_agent.runner import files

CONTROL_KEY = "control.key"
DATA_KEY = "data.key"
NEXT_KEY = "data-next.key"  # while the data key rotates: the new one


def make(directory: Path) -> dict[str, str]:
    """Make what is missing; return the public keys by name. Raises ConfigError."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        msg = f"{directory}: {error.strerror}"
        raise ConfigError(msg) from error
    return {
        "control_key": str(keyfile.load_or_create(directory / CONTROL_KEY).public),
        "data_key": str(keyfile.load_or_create(directory / DATA_KEY).public),
    }


def load(directory: Path) -> tuple[PrivateKey, PrivateKey]:
    """Return the control and the data key; raises ConfigError.

    The control key must be there, because it is what an operator enrolled; a data key is made.
    """
    control = directory / CONTROL_KEY
    if not control.exists():
        msg = f"{control}: no key; make one with: wgmap-agent keygen --dir {directory}"
        raise ConfigError(msg)
    return keyfile.load(control), keyfile.load_or_create(directory / DATA_KEY)


def has_next(directory: Path) -> bool:
    """Tell whether a rotation of the data key is under way."""
    return (directory / NEXT_KEY).exists()


def make_next(directory: Path) -> PrivateKey:
    """Return the data key that is rotated to, on disk before; raises ConfigError."""
    return keyfile.load_or_create(directory / NEXT_KEY)


def commit_next(directory: Path) -> None:
    """Make the new data key the data key, and the rotation over; raises ConfigError."""
    try:
        (directory / NEXT_KEY).replace(directory / DATA_KEY)
        files.sync_directory(directory)
    except OSError as error:
        msg = f"{directory / DATA_KEY}: {error.strerror}"
        raise ConfigError(msg) from error


def made_at(directory: Path) -> float:
    """Return when the data key was made (seconds since 1970)."""
    return (directory / DATA_KEY).stat().st_mtime
