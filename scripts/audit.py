#!/usr/bin/env python3
"""Compares what hosts are installed from with the published advisories, by pip-audit.

Fails (1) for a known weakness, and for what could not be looked up while others could. Where no
advisory is reached at all it says so, and fails as well unless ``--if-reached`` is given: then a
machine without a way to them is no reason to stop.
"""

import argparse
import json
import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LOCKED = ROOT / "deploy/requirements.lock"
PLACE = ROOT / "build/audit"
LONGEST_S = 300


def main() -> int:
    """Audit; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--if-reached", action="store_true", help="0 where nothing is reached")
    options = parser.parse_args()
    found, why = _audited()
    if not any("vulns" in one for one in found):
        sys.stderr.write(f"dependencies were NOT audited: no advisories are reached ({why})\n")
        return 0 if options.if_reached else 1
    bad = [_told(one) for one in found if one.get("vulns") or "skip_reason" in one]
    text = "\n".join(bad) or f"{len(found)} dependencies: no advisory is about them"
    sys.stdout.write(f"{text}\n")
    return 1 if bad else 0


def _told(one: dict[str, Any]) -> str:
    known = ", ".join(vulnerability["id"] for vulnerability in one.get("vulns", ()))
    return f"{one['name']} {one.get('version', '')}: {known or one['skip_reason']}"


def _audited() -> tuple[list[dict[str, Any]], str]:
    """Return what pip-audit says of each dependency, and why it says nothing where it does not."""
    try:
        argv = [*_program(), "--disable-pip", "--format", "json", "--requirement", str(LOCKED)]
        ended = subprocess.run(  # noqa: S603  # our own words
            argv, capture_output=True, text=True, timeout=LONGEST_S, check=False
        )
        found: list[dict[str, Any]] = json.loads(ended.stdout)["dependencies"]
    except (subprocess.SubprocessError, OSError) as error:
        return [], str(error)
    except (ValueError, KeyError):
        return [], _last_line(ended.stderr)
    return found, next((one["skip_reason"] for one in found if "skip_reason" in one), "")


def _program() -> list[str]:
    """Return pip-audit, installed beside; ``PIP_AUDIT`` names another one."""
    given = os.environ.get("PIP_AUDIT")
    if given:
        return [given]
    venv.create(PLACE, with_pip=True)
    install = [str(PLACE / "bin/python"), "-m", "pip", "install", "--quiet", "pip-audit"]
    subprocess.run(install, check=True, capture_output=True, timeout=LONGEST_S)  # noqa: S603
    return [str(PLACE / "bin/pip-audit")]


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it said nothing"])[-1]


if __name__ == "__main__":
    sys.exit(main())
