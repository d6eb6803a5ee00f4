"""The distributions that machines are made of: ``WGMAP_ROLLOUT_SUITE`` chooses one."""

import hashlib
import os
import shutil
import tempfile
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rollout.commands import SiteError, run

CACHE = Path(os.environ.get("WGMAP_ROLLOUT_CACHE", "/var/cache/wgmap-rollout"))
PACKAGES = (
    *("systemd-sysv", "dbus", "libpam-systemd", "python3", "python3-venv", "openssh-server"),
    *("iproute2", "iputils-ping", "wireguard-go", "wireguard-tools", "nftables", "procps"),
    *("ca-certificates", "kmod", "bash-completion", "zsh"),
)
COMPILER = ("gcc", "libc6-dev", "python3-dev")  # two packages have no wheels
UBUNTU = "http://archive.ubuntu.com/ubuntu"
UBUNTU_KEYS = "pool/main/u/ubuntu-keyring/ubuntu-keyring_2023.11.28.1_all.deb"
UBUNTU_KEYS_SHA256 = "36de43b15853ccae0028e9a767613770c704833f82586f28eb262f0311adb8a8"


@dataclass(frozen=True)
class Suite:
    """A release of a distribution."""

    name: str
    python: str
    mirror: str | None = None  # None: the one that this machine has
    options: tuple[str, ...] = ()

    @property
    def base(self) -> Path:
        """The root file system that all machines share."""
        return CACHE / self.name

    @property
    def is_ours(self) -> bool:
        """Whether what is compiled on this machine runs there."""
        return self.python == _own_python()

    def make(self) -> None:
        """Make the root file system, where it is not there yet."""
        packages = (*PACKAGES, *self._compiler())
        done = CACHE / f"made-{self.name}-{_hash_of(packages)}"
        if done.exists():
            return
        CACHE.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self.base, ignore_errors=True)
        with _keys(self) as keys:
            run(
                *("mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(packages)}"),
                *(*self.options, *keys, self.name, self.base, *([self.mirror] * bool(self.mirror))),
                timeout_s=900,
            )
        done.touch()

    def build(self, tree: Path, directory: Path, timeout_s: float) -> Path:
        """Build the wheelhouse of a tree, as for machines of this suite; returns its path."""
        if self.is_ours:
            printed = run(tree / "scripts/wheelhouse.sh", directory, timeout_s=timeout_s)
            return Path(printed.splitlines()[-1])
        self.make()
        with tempfile.TemporaryDirectory(dir=directory) as folder:
            return self._build_inside(tree, directory, Path(folder), timeout_s)

    def _build_inside(self, tree: Path, directory: Path, folder: Path, timeout_s: float) -> Path:
        """Fetch the sources here; compile them there, where nothing is fetched."""
        sources = folder / "sources"
        for lock in ("requirements.lock", "requirements-build.lock"):
            run(
                *("python3", "-m", "pip", "--quiet", "download", "--no-deps", "--require-hashes"),
                *("--python-version", self.python, "--implementation", "cp"),
                *(f"--platform={one}" for one in _platforms()),
                *("--dest", sources, "-r", tree / "deploy" / lock),
                timeout_s=timeout_s,
            )
        root = folder / "root"
        with _view(self.base, folder, root, {"tree": tree, "sources": sources, "out": directory}):
            printed = run(
                *("chroot", root, "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"),
                *(
                    "PIP_NO_INDEX=1",
                    "PIP_FIND_LINKS=/mnt/sources",
                    "/mnt/tree/scripts/wheelhouse.sh",
                ),
                "/mnt/out",
                timeout_s=timeout_s,
            )
        return directory / Path(printed.splitlines()[-1]).name

    def _compiler(self) -> Iterable[str]:
        return () if self.is_ours else COMPILER


SUITES = {
    one.name: one
    for one in (
        Suite("bookworm", "3.11"),
        Suite("noble", "3.12", UBUNTU, ("--components=main,universe",)),
    )
}
CHOSEN = SUITES[os.environ.get("WGMAP_ROLLOUT_SUITE", "bookworm")]


def _own_python() -> str:
    script = "import sys; print('%d.%d' % sys.version_info[:2])"
    return run("python3", "-c", script).strip()


def _platforms() -> list[str]:
    """Return the platforms whose wheels a glibc of 2.39 takes."""
    machine = os.uname().machine
    old = [f"manylinux{one}_{machine}" for one in ("1", "2010", "2014")]
    return old + [f"manylinux_2_{minor}_{machine}" for minor in range(5, 40)]


@contextmanager
def _keys(suite: Suite) -> Iterator[list[str]]:
    """Yield the option that names Ubuntu's keys, which Debian has no package of."""
    if suite.mirror is None:
        yield []
        return
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder, "keys.deb")
        with urllib.request.urlopen(f"{suite.mirror}/{UBUNTU_KEYS}", timeout=60) as answer:
            package.write_bytes(answer.read())
        found = hashlib.sha256(package.read_bytes()).hexdigest()
        if found != UBUNTU_KEYS_SHA256:
            raise SiteError(f"{UBUNTU_KEYS} is not the one that is meant: {found}")
        run("dpkg-deb", "-x", package, folder)
        yield [f"--keyring={folder}/usr/share/keyrings/ubuntu-archive-keyring.gpg"]


@contextmanager
def _view(base: Path, folder: Path, root: Path, bound: dict[str, Path]) -> Iterator[None]:
    """Mount a copy of ``base`` that can be written to, with directories in its /mnt."""
    for part in ("upper", "work", "root"):
        (folder / part).mkdir()
    layers = f"lowerdir={base},upperdir={folder}/upper,workdir={folder}/work"
    mounted = []
    try:
        run("mount", "-t", "overlay", "overlay", "-o", layers, root)
        mounted.append(root)
        for place, source in ({f"mnt/{name}": path for name, path in bound.items()}).items():
            (root / place).mkdir(parents=True)
            run("mount", "--bind", source, root / place)
            mounted.append(root / place)
        yield
    finally:
        for place_of in reversed(mounted):
            run("umount", "-l", place_of, check=False)


def _hash_of(words: Iterable[str]) -> str:
    return hashlib.sha256(" ".join(words).encode()).hexdigest()[:12]
