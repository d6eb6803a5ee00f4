"""A history's file, written by many threads at once."""

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from wgmap_chaos.history import file
from wgmap_chaos.history.records import Said

THREADS, EACH = 8, 4000


@pytest.fixture
def eager_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("eager_switches")
def test_what_threads_write_at_once_is_read_back_whole(tmp_path: Path) -> None:
    path = tmp_path / file.NAME
    with file.Recorder(path) as recorder, ThreadPoolExecutor(THREADS) as threads:

        def add(thread: int) -> None:
            for number in range(EACH):
                recorder.add(Said(host=f"ms{thread}", text=f"{number} " + "x" * 200))

        list(threads.map(add, range(THREADS)))
    said = file.read(path).said
    for thread in range(THREADS):
        numbers = [int(one.text.split()[0]) for one in said if one.host == f"ms{thread}"]
        assert numbers == list(range(EACH))
