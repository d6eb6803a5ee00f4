"""Replay or search: PYTHONPATH=tests python -m support.raftsim --seed 17 [--seeds 100]."""

import argparse
import logging
import sys
import time

from support.raftsim.world import simulate


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=1, help="how many, from --seed on")
    parser.add_argument("--servers", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--asking", action="store_true", help="questions beside the log, too")
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    logging.basicConfig(level=logging.DEBUG if options.verbose else logging.CRITICAL)
    begun = time.monotonic()
    totals: dict[str, int] = {}
    for seed in range(options.seed, options.seed + options.seeds):
        checks = simulate(seed, options.servers, options.steps, asking=options.asking)
        for name, number in checks.counts.items():
            totals[name] = totals.get(name, 0) + number
    took = time.monotonic() - begun
    sys.stdout.write(f"{options.seeds} seeds, {took:.1f} s: {totals}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
