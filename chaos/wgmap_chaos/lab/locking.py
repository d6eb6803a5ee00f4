"""One command at a time on one lab."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wgmap_chaos.lab.waiting import Deadline

WAIT_S = 120.0


@contextmanager
def locked(directory: Path) -> Iterator[int]:
    """Hold the lock of the lab in ``directory`` (which must exist); yield its descriptor.

    The directory itself is locked, so nothing is left behind and nothing can be deleted under
    the lock. The kernel lets go when the holder dies. Programs that are started do not inherit
    it unless the descriptor is passed on. Raises LabError after WAIT_S.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        Deadline(WAIT_S).wait(
            lambda: _try(descriptor),
            lambda: f"the end of another command on the lab in {directory}",
        )
        yield descriptor
    finally:
        os.close(descriptor)


def _try(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
