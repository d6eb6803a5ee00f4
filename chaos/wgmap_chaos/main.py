"""``wgmap-chaos``: labs, faults and judges."""

import argparse
import sys
from collections.abc import Sequence

from wgmap.errors import ExitCode
from wgmap.program import finish
from wgmap_chaos.lab import cli as lab
from wgmap_chaos.logchaos import cli as log
from wgmap_chaos.whole import cli as whole_product


def parser() -> argparse.ArgumentParser:
    """Build the parser of the whole program."""
    whole = argparse.ArgumentParser(prog="wgmap-chaos", description=__doc__)
    groups = whole.add_subparsers(required=True, metavar="GROUP")
    lab.add_commands(groups)
    log.add_commands(groups)
    whole_product.add_commands(groups)
    return whole


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    options = parser().parse_args(arguments)

    def work() -> int:
        options.run(options)
        return ExitCode.OK

    return finish("wgmap-chaos", work)


if __name__ == "__main__":
    sys.exit(main())
