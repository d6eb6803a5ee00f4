"""The tables of the evaluation of chaos are made from what was kept of runs, and nothing else."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_the_document_has_the_tables_that_the_runs_make() -> None:
    command = [sys.executable, str(ROOT / "scripts/chaos_tables.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"run scripts/chaos_tables.py\n{done.stderr}"
