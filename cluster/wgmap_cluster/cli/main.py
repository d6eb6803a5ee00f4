"""Entry point of ``wgmap``."""

import json
import os
import sys

from wgmap.errors import ExitCode, WgmapError
from wgmap_cluster.cli.arguments import parse
from wgmap_cluster.cli.client import Client

INTERRUPTED = 130  # as a shell says it


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    command, options = parse(argv)
    try:
        report = command(Client(options.socket), options)
        if report.warning:
            print(f"wgmap: {report.warning}", file=sys.stderr)
        said = json.dumps(report.value, indent=2) if options.json else report.text
        if not report.silent:
            print(said, flush=True)
    except WgmapError as error:
        print(f"wgmap: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        # The reader has enough (`| head`); keep the interpreter from flushing into the void.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    return report.exit_code
