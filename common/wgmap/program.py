"""How every program ends: what went wrong as one line, and an exit code."""

import os
import sys
from collections.abc import Callable

from wgmap.errors import ExitCode, WgmapError

INTERRUPTED = 130  # as a shell says it
# What `--help` of a program ends with.
EPILOG = (
    "Exit codes: 0 done; 1 failed, not found or refused; 2 usage, configuration or input is wrong; "
    "3 done, but not yet confirmed by all servers."
)


def finish(name: str, work: Callable[[], int]) -> int:
    """Run the work of program ``name`` and return its exit code; no WgmapError leaves it."""
    try:
        return int(work())
    except WgmapError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return int(error.exit_code)
    except OSError as error:
        # Keep the interpreter from flushing once more what cannot be written.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):  # with that the reader has enough (`| head`)
            print(f"{name}: {error.strerror or error}", file=sys.stderr)
        return int(ExitCode.FAILED)
    except KeyboardInterrupt:
        return INTERRUPTED
