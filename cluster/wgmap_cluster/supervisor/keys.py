"""A server's two private keys: made here, kept here, never shown."""

from pathlib import Path

from wgmap.errors import ConfigError
from wgmap.wg import keyfile
from wgmap.wg.keys import PrivateKey

CONTROL_KEY = "control.key"
MESH_KEY = "mesh.key"


def make(directory: Path) -> dict[str, str]:
    """Make what is missing; return the public keys by name. Raises ConfigError."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{directory}: {error.strerror}") from error
    return {
        "control_key": str(keyfile.load_or_create(directory / CONTROL_KEY).public),
        "mesh_key": str(keyfile.load_or_create(directory / MESH_KEY).public),
    }


def load(directory: Path, name: str) -> PrivateKey:
    """Return a key that must be there: others know its public half. Raises ConfigError."""
    path = directory / name
    if not path.exists():
        raise ConfigError(f"{path}: no key; make one with: wgmap-server keygen --dir {directory}")
    return keyfile.load(path)
