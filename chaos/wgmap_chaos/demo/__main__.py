"""``make demo``: exit code 0 only if every step held."""

import argparse
import asyncio
import os
import sys
import tempfile
from pathlib import Path

from wgmap.clock import now
from wgmap.errors import ExitCode, WgmapError
from wgmap_chaos.demo.steps import Demo
from wgmap_chaos.programs import ProgramError, run


def main() -> int:
    """Bring a lab up, run the steps, draw the timeline, take the lab down."""
    parser = argparse.ArgumentParser(prog="python -m wgmap_chaos.demo", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/demo"), help="where the plot goes")
    parser.add_argument("--delay", default="0", help="one-way underlay delay in ms")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="wgmap-demo-") as directory:
        try:
            return _in_lab(Path(directory), options.out, options.delay)
        except (ProgramError, WgmapError) as error:
            print(f"  FAIL {error}")
            return ExitCode.FAILED


def _in_lab(directory: Path, out: Path, delay: str) -> int:
    print("Three map servers and four agents over real WireGuard")
    started = now()
    sizes = ["--servers", "3", "--agents", "4", "--delay", delay]
    try:
        run("wgmap-chaos", "lab", "up", *sizes, "--dir", str(directory), timeout_s=180)
        demo = Demo(directory, lambda text: print(text, flush=True))
        demo.check(f"every agent registered after {now() - started:.1f} s", held=True)
        asyncio.run(demo.run())
        plot = out / "timeline.png"
        made = _missing(plot)
        demo.timeline.draw(plot)
        _give_back([*made, plot])
    finally:
        run("wgmap-chaos", "lab", "down", "--dir", str(directory), timeout_s=60)
    print(f"\nThe picture: {plot}")
    if demo.failures:
        print(f"{len(demo.failures)} of the steps did not hold.")
        return ExitCode.FAILED
    print("Every step held.")
    return ExitCode.OK


def _missing(path: Path) -> list[Path]:
    return [part for part in (path, *path.parents) if not part.exists()]


def _give_back(made: list[Path]) -> None:
    """Hand what was written under sudo to the person who typed it."""
    uid, gid = os.environ.get("SUDO_UID"), os.environ.get("SUDO_GID")
    if uid is None or gid is None:
        return
    for path in made:
        os.chown(path, int(uid), int(gid))


if __name__ == "__main__":
    sys.exit(main())
