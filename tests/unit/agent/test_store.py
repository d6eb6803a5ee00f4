"""The state directory: kept whole, kept private, kept to one agent."""

import asyncio
import os
import subprocess
import sys
import zlib
from pathlib import Path

import msgpack
import pytest

from support.agent_values import HIGH_KEY, LOW_KEY, SERVERS
from wgmap.errors import ConfigError, ConflictError
from wgmap_agent.engine.types import SavedState
from wgmap_agent.runner import walltime
from wgmap_agent.runner.store import STATE_FILE, StateError, Store, decode, encode

STATE = SavedState(2**64 - 2, 7, (LOW_KEY, HIGH_KEY), SERVERS)


def test_what_is_saved_is_read_again(tmp_path: Path) -> None:
    with Store(tmp_path / "a" / "b") as store:
        assert store.load() == SavedState()
        store.save(STATE)
    with Store(tmp_path / "a" / "b") as store:
        assert store.load() == STATE
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "a" / "b" / STATE_FILE).stat().st_mode & 0o777 == 0o600


def test_every_damaged_byte_is_noticed() -> None:
    good = encode(STATE)
    for position in range(len(good)):
        damaged = bytearray(good)
        damaged[position] ^= 0x41
        with pytest.raises(StateError):
            decode(bytes(damaged))
    for length in range(len(good)):
        with pytest.raises(StateError):
            decode(good[:length])


@pytest.mark.parametrize(
    "fields",
    [
        {"revoked": 7},
        {"revoked": [b"short"]},
        {"revoked": ["x" * 32]},
        {"servers": [["ms1", bytes(32), "192.0.2.1:51822"]]},
        {"servers": [["ms1", bytes(32), 7, bytes(16)]]},
        {"servers": [["ms1", bytes(32), "192.0.2.1", bytes(16)]]},
        {"servers": [["ms1", bytes(32), "192.0.2.1:51822", bytes(4)]]},
        {"servers": [[1, bytes(32), "192.0.2.1:51822", bytes(16)]]},
    ],
)
def test_values_that_make_no_sense_are_noticed(fields: dict[str, object]) -> None:
    body = msgpack.packb({"nonce": 1, "revocation": None, **fields})
    with pytest.raises(StateError):
        decode(b"wgmapag1" + zlib.crc32(body).to_bytes(4) + body)


def test_what_an_earlier_version_wrote_is_read() -> None:
    body = msgpack.packb({"nonce": 1})
    assert decode(b"wgmapag1" + zlib.crc32(body).to_bytes(4) + body) == SavedState(1)


def test_a_damaged_file_is_set_aside_and_the_agent_starts(tmp_path: Path) -> None:
    (tmp_path / STATE_FILE).write_bytes(b"garbage" * 10)
    with Store(tmp_path) as store:
        assert store.load() == SavedState()
        assert (tmp_path / "state.bad").read_bytes() == b"garbage" * 10
        store.save(STATE)
        assert store.load() == STATE


def test_a_crash_while_saving_leaves_the_old_state(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.save(STATE)
        (tmp_path / "state.new").write_bytes(encode(SavedState(nonce=9))[:-1])
        assert store.load() == STATE
        store.save(SavedState(nonce=10))
        assert store.load() == SavedState(nonce=10)


def test_a_second_agent_is_refused_and_told_who_has_it(tmp_path: Path) -> None:
    with Store(tmp_path), pytest.raises(ConflictError, match=f"pid {os.getpid()}"):
        Store(tmp_path)
    Store(tmp_path).close()


def test_a_child_does_not_inherit_the_lock(tmp_path: Path) -> None:
    store = Store(tmp_path)
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        store.close()
        Store(tmp_path).close()
    finally:
        child.communicate(b"\n")


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="file"):
        Store(tmp_path / "file" / "state")


def test_the_last_wall_time_outlives_a_run(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        assert store.last_wall is None
        store.note_wall(2_000_000_000.5)
    for _ in range(2):  # a run that dies before it notes its own time keeps the older one
        with Store(tmp_path) as store:
            assert store.last_wall == 2_000_000_000.5


async def test_a_clock_behind_the_last_run_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    wall = 1000.0
    monkeypatch.setattr(walltime, "now", lambda: wall)
    monkeypatch.setattr(walltime, "POLL_S", 0.01)
    assert await walltime.reached(None)
    assert await walltime.reached(999.0)
    assert not await walltime.reached(1001.0, wait_s=0.05)
    waiting = asyncio.create_task(walltime.reached(1001.0))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    wall = 1001.0
    assert await asyncio.wait_for(waiting, 5)
