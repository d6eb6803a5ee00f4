"""The corpus is what the vectors are, and holds no input that breaks the codec."""

from pathlib import Path

import pytest

from fuzz.make_corpus import seeds
from support.lisp_check import check_bytes

CORPUS = Path(__file__).parent / "corpus"
FILES = sorted(CORPUS.iterdir())


def test_every_vector_is_a_seed() -> None:
    present = {path.name: path.read_bytes() for path in FILES}
    assert {name: present.get(name) for name in seeds()} == seeds()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_corpus_breaks_nothing(path: Path) -> None:
    check_bytes(path.read_bytes())
