"""Private keys on disk."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from wgmap.errors import ConfigError
from wgmap.wg import keyfile
from wgmap.wg.keys import PrivateKey


def test_a_key_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "data.key"
    key = keyfile.load_or_create(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert keyfile.load_or_create(path).reveal() == key.reveal() == keyfile.load(path).reveal()
    assert list(tmp_path.iterdir()) == [path]


def test_two_at_the_same_time_get_the_same_key(tmp_path: Path) -> None:
    path = tmp_path / "key"
    with ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(lambda _: keyfile.load_or_create(path).reveal(), range(16)))
    assert len(set(keys)) == 1
    assert list(tmp_path.iterdir()) == [path]


def test_what_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    keyfile.load_or_create(path)
    path.chmod(0o640)
    with pytest.raises(ConfigError, match=r"key: mode 0640 .*chmod 600"):
        keyfile.load_or_create(path)


def test_nonsense_is_refused_without_showing_it(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("SECRET-BUT-NOT-A-KEY")
    path.chmod(0o600)
    with pytest.raises(ConfigError) as caught:
        keyfile.load(path)
    assert "SECRET" not in str(caught.value)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="44 characters"):
        keyfile.load(path)


def test_a_missing_file_or_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="none: No such file"):
        keyfile.load(tmp_path / "none")
    with pytest.raises(ConfigError, match="cannot make a key: No such file"):
        keyfile.load_or_create(tmp_path / "no" / "folder")


def test_a_folder_is_no_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="directory"):
        keyfile.load(tmp_path)


def test_reads_what_wg_genkey_writes(tmp_path: Path) -> None:
    path = tmp_path / "key"
    key = PrivateKey.generate()
    path.write_text(key.encode() + "\n")
    path.chmod(0o600)
    assert keyfile.load(path).public == key.public
