"""Wall clocks of a lab's hosts that can be made to jump, for wgmap's own processes.

All hosts of a lab share the machine's clock, and no namespace has a wall clock of its own. So the
daemons load a small library that adds what a file says (``wallclock.c``); libfaketime was tried and
breaks sleeping where a clock goes back. WireGuard's processes are left out: Go asks the kernel.
"""

import struct
from collections.abc import Callable, Mapping
from pathlib import Path

from wgmap_chaos.lab import shell
from wgmap_chaos.lab.topology import Host, Paths, Topology

_SOURCE = Path(__file__).with_suffix(".c")
_SHIFT = struct.Struct("=q")  # ns


class WallClock:
    """The wall clock of one host: a file, which is there from ``make`` on."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def make(self) -> None:
        """Begin with a clock that is right; raises OSError."""
        self.path.write_bytes(_SHIFT.pack(0))

    def jump(self, seconds: float) -> None:
        """Be wrong by so much from now on; 0: right again. Raises OSError."""
        with self.path.open("r+b") as file:
            file.write(_SHIFT.pack(int(seconds * 1e9)))


def of(paths: Paths, name: str) -> WallClock:
    """Return the clock of a host."""
    return WallClock(paths.directory / "config" / f"{name}.clock")


def build(directory: Path) -> Path:
    """Compile the library; raises LabError."""
    library = directory / "wallclock.so"
    options = ["-O2", "-Wall", "-Werror", "-shared", "-fPIC"]
    shell.run(["gcc", *options, "-o", str(library), str(_SOURCE), "-ldl"])
    return library


def environments(library: Path) -> Callable[[Topology, Host], Mapping[str, str]]:
    """Give each host a clock of its own; for ``commands.up``."""

    def environment(topology: Topology, host: Host) -> Mapping[str, str]:
        clock = of(topology.paths, host.name)
        clock.make()
        return {"LD_PRELOAD": str(library), "WGMAP_WALL_CLOCK": str(clock.path)}

    return environment
