"""The library alone still breaks what our layer promises (support/stockproofs.py).

If one of these fails after an upgrade, the library may have cured that defect: read
docs/replication.md, "Upgrading the library", before anything is removed from the layer.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent.parent


@pytest.mark.slow
@pytest.mark.parametrize("proof", [f"P{number}" for number in range(1, 14)])
def test_the_stock_library_still_has(proof: str, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(TESTS), "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-m", "support.stockproofs", proof]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, f"{proof} did not appear: {done.stderr[-2000:]}"
