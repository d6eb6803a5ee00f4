"""Entry point of ``wgmap``."""

import json
import sys

from wgmap.program import finish
from wgmap.progress import Progress
from wgmap_cluster.cli.arguments import parse
from wgmap_cluster.cli.client import Client


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    command, options = parse(argv)

    def work() -> int:
        with Progress("wgmap") as progress:
            report = command(Client(options.socket, progress), options)
        if report.warning:
            print(f"wgmap: {report.warning}", file=sys.stderr)
        if not report.silent:
            print(json.dumps(report.value, indent=2) if options.json else report.text, flush=True)
        return report.exit_code

    return finish("wgmap", work)
