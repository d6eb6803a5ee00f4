"""The corpora: one is what the vectors are, and neither holds an input that breaks its reader."""

from pathlib import Path

import pytest

from fuzz.make_corpus import seeds
from support.lisp_check import check_bytes
from support.uapi_check import accept, check_answer

CORPUS = Path(__file__).parent / "corpus"
FILES = sorted(CORPUS.iterdir())
ANSWERS = sorted((Path(__file__).parent / "uapi").iterdir())


def test_every_vector_is_a_seed() -> None:
    present = {path.name: path.read_bytes() for path in FILES}
    assert {name: present.get(name) for name in seeds()} == seeds()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_corpus_breaks_nothing(path: Path) -> None:
    check_bytes(path.read_bytes())


@pytest.mark.parametrize("path", ANSWERS, ids=lambda path: path.name)
def test_answers_break_nothing(path: Path) -> None:
    check_answer(path.read_bytes())


def test_some_of_the_answers_are_accepted() -> None:
    accepted = {path.name for path in ANSWERS if accept(path.read_bytes()) is not None}
    assert accepted == {"one-peer", "two-peers-with-zone", "empty", "key-in-capitals"}
