"""The cache of peers used lately: what it keeps, what it gives back, what throws it out."""

import os
import random
from dataclasses import replace
from pathlib import Path

import pytest

from support.agent_values import HIGH_KEY, IDENTITY, LOW_KEY, locator, net, record
from wgmap.addresses import Endpoint
from wgmap.wg.keys import PublicKey
from wgmap_agent.engine.cache import Cache
from wgmap_agent.engine.counters import Counters
from wgmap_agent.engine.settings import Settings
from wgmap_agent.engine.types import CachedPeer, SaveCache
from wgmap_agent.runner import cachefile
from wgmap_agent.runner.cachefile import CACHE_FILE, VERSION, Cached, CacheFile, Times
from wgmap_agent.runner.store import StateError

OWNER = cachefile.owner_of(IDENTITY, HIGH_KEY)
DAY = 86_400.0
TIMES = Times(now=1000.0, wall=1_700_000_000.0)
PEER = CachedPeer(LOW_KEY, (record("10.66.2.0/24"), record("fd66::2/128")), 900.0)
SETTINGS = Settings()


def make(*peers: CachedPeer, settings: Settings = SETTINGS) -> Cache:
    return Cache(settings, Counters(), peers)


def peer(number: int, confirmed: float = 0.0) -> CachedPeer:
    key = PublicKey(bytes([number]) * 32)
    address = f"10.66.{number}.1"
    return CachedPeer(key, (record(f"{address}/32", locator(key, f"192.0.2.{number}")),), confirmed)


# ---------------------------------------------------------------------------------- what it knows


def test_what_is_recalled_has_neither_authority_nor_version() -> None:
    found = make(PEER).find(1000.0, net("10.66.2.7/32").network_address)
    assert [one.eid.prefix for one in found] == [net("10.66.2.0/24"), net("fd66::2/128")]
    assert not any(one.authoritative or one.version for one in found)
    assert make(PEER).find(1000.0, net("10.66.3.7/32").network_address) == ()


def test_a_peer_is_found_by_where_it_was() -> None:
    at = Endpoint(net("192.0.2.12/32").network_address, 51820)
    cache = make(PEER)
    assert {one.eid.prefix for one in cache.at(1000.0, at)} == {
        one.eid.prefix for one in PEER.records
    }
    assert cache.at(1000.0, at._replace(port=51821)) == ()


def test_what_is_too_old_is_not_recalled_and_not_saved() -> None:
    cache = make(replace(PEER, confirmed=0.0))
    assert cache.find(SETTINGS.unconfirmed_s - 1, net("10.66.2.7/32").network_address)
    assert not cache.find(SETTINGS.unconfirmed_s, net("10.66.2.7/32").network_address)
    assert cache.save(SETTINGS.unconfirmed_s, 3) == SaveCache((), 3)


def test_the_peer_confirmed_longest_ago_makes_room() -> None:
    cache = make(settings=Settings(cache_peers=3))
    for number in (11, 12, 13):
        cache.note(float(number), peer(number, float(number)))
    cache.note(14.0, peer(11, 14.0))  # again: now the youngest
    cache.note(15.0, peer(15, 15.0))
    kept = {one.key for one in cache.save(16.0, None).peers}
    assert kept == {peer(number).key for number in (11, 13, 15)}


def test_a_prefix_that_moved_is_recalled_of_its_new_owner_only() -> None:
    cache = make(PEER)
    moved = (record("10.66.2.0/24", locator(HIGH_KEY)),)
    cache.note(1000.0, CachedPeer(HIGH_KEY, moved, 1000.0))
    [one] = cache.find(1000.0, net("10.66.2.7/32").network_address)
    assert one.locators[0].key == HIGH_KEY
    [rest] = cache.find(1000.0, net("fd66::2/128").network_address)
    assert rest.locators[0].key == LOW_KEY
    cache.note(
        1001.0, CachedPeer(HIGH_KEY, (*moved, record("fd66::2/128", locator(HIGH_KEY))), 1001.0)
    )
    assert len(cache) == 1  # the former owner has nothing left


@pytest.mark.parametrize("how", ["key", "prefix", "inside"])
def test_what_was_revoked_or_withdrawn_is_forgotten_and_that_is_saved_at_once(how: str) -> None:
    cache = make(PEER)
    if how == "key":
        cache.forget(1000.0, LOW_KEY)
    else:
        cache.forget_prefix(1000.0, net("10.66.2.0/24" if how == "prefix" else "10.66.2.9/32"))
    assert cache.deadline() == 1000.0
    assert cache.due(1000.0, 7) == [SaveCache((), 7)]
    assert cache.find(1000.0, net("fd66::2/128").network_address) == ()


def test_it_is_not_written_with_every_packet() -> None:
    cache, saved, rng = make(), 0, random.Random(1)
    for tick in range(6000):  # a minute, with a confirmation every 10 ms
        now = tick / 100
        cache.note(now, peer(rng.randrange(1, 200), now))
        saved += len(cache.due(now, None))
    assert saved == 2  # after the first second, and 30 s later
    assert cache.due(61.0 + SETTINGS.cache_save_s, None) != []


def test_nothing_is_kept_where_it_is_switched_off() -> None:
    cache = make(PEER, settings=Settings(cache_peers=0))
    cache.note(1000.0, peer(11, 1000.0))
    assert len(cache) == 0


# ------------------------------------------------------------------------------------- the file


def test_what_is_saved_is_read_again_after_a_reboot(tmp_path: Path) -> None:
    file = CacheFile(tmp_path, OWNER, DAY)
    assert file.load(TIMES) == Cached()
    file.save(SaveCache((PEER, peer(11, 1000.0)), 5), TIMES)
    assert (tmp_path / CACHE_FILE).stat().st_mode & 0o777 == 0o600
    # The clock of the engine starts anew, the wall clock goes on: 100 s old, and ten minutes more.
    read = file.load(Times(now=20.0, wall=TIMES.wall + 600))
    assert read.revocation == 5
    assert {one.key: one.confirmed for one in read.peers} == {
        LOW_KEY: 20.0 - 700,
        peer(11).key: 20.0 - 600,
    }
    assert {one.key: one.records for one in read.peers}[LOW_KEY] == PEER.records


def test_old_peers_are_left_out(tmp_path: Path) -> None:
    file = CacheFile(tmp_path, OWNER, DAY)
    file.save(SaveCache((PEER, peer(11, 1000.0)), 5), TIMES)
    read = file.load(Times(0.0, TIMES.wall + DAY - 50))
    assert [one.key for one in read.peers] == [peer(11).key]
    assert file.load(Times(0.0, TIMES.wall + DAY)).peers == ()


def test_every_damaged_byte_is_noticed() -> None:
    good = cachefile.encode(SaveCache((PEER,), 5), OWNER, TIMES)
    assert cachefile.decode(good, OWNER).revocation == 5
    for position in range(len(good)):
        damaged = bytearray(good)
        damaged[position] ^= 0x41
        with pytest.raises(StateError):
            cachefile.decode(bytes(damaged), OWNER)
        with pytest.raises(StateError):
            cachefile.decode(good[:position], OWNER)


def _future() -> bytes:
    data = bytearray(cachefile.encode(SaveCache((PEER,), 5), OWNER, TIMES))
    data[8:10] = (VERSION + 1).to_bytes(2)
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no cache"),
        (b"garbage" * 100, "no cache"),
        (_future(), "another version"),
        (cachefile.encode(SaveCache((PEER,), 5), b"x" * 36, TIMES), "another agent"),
        (cachefile.encode(SaveCache((PEER,), 5), OWNER, Times(1000.0, TIMES.wall + 9e9)), "future"),
    ],
    ids=["empty", "garbage", "later version", "another agent", "saved in the future"],
)
def test_a_file_of_no_use_is_told_and_ignored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, data: bytes, reason: str
) -> None:
    file = CacheFile(tmp_path, OWNER, DAY)
    path = tmp_path / CACHE_FILE
    path.write_bytes(data)
    path.chmod(0o600)
    assert file.load(TIMES) == Cached()
    assert "the cache is ignored" in caplog.text
    assert reason in caplog.text
    file.save(SaveCache((PEER,), 5), TIMES)
    assert file.load(TIMES).peers == (PEER,)


def test_a_file_that_others_could_write_is_ignored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = CacheFile(tmp_path, OWNER, DAY)
    file.save(SaveCache((PEER,), 5), TIMES)
    os.chmod(tmp_path / CACHE_FILE, 0o640)  # noqa: PTH101
    assert file.load(TIMES) == Cached()
    assert "mode 0640" in caplog.text


def test_a_crash_while_saving_leaves_the_old_file(tmp_path: Path) -> None:
    file = CacheFile(tmp_path, OWNER, DAY)
    file.save(SaveCache((PEER,), 5), TIMES)
    (tmp_path / "cache.new").write_bytes(b"half")
    assert file.load(TIMES).peers == (PEER,)
    file.save(SaveCache((), 6), TIMES)
    assert file.load(TIMES) == Cached((), 6)


@pytest.mark.parametrize(
    ("in_cache", "in_state", "known"),
    [(5, 5, 5), (3, 5, 3), (5, 3, 3), (None, 5, 0), (5, None, 5), (None, None, 0)],
)
def test_servers_tell_again_what_the_cache_may_have_missed(
    in_cache: int | None, in_state: int | None, known: int
) -> None:
    """A crash between the two files must not bring a revoked key back."""
    assert Cached((PEER,), in_cache).revocation_known(in_state) == known
    assert Cached((), in_cache).revocation_known(in_state) == in_state
