"""The claims of documents name the tests that show them, and those tests exist."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
DOCUMENTS = {"docs/security.md": 15, "docs/evaluation/rollout.md": 30}  # and how many they are
_ROW = re.compile(r"^\| (?P<claim>[^|]+) \| (?P<tests>[^|]+) \|$", re.MULTILINE)
_TEST = re.compile(r"`(?P<file>tests/[\w/]+\.py)::(?P<name>test_\w+)`")


def claims() -> dict[str, list[tuple[str, str]]]:
    """Return the tests of each claim: file and function."""
    found = {}
    for document in DOCUMENTS:
        for row in rows(document):
            named = [(one["file"], one["name"]) for one in _TEST.finditer(row["tests"])]
            found[f"{document}: {row['claim']}"] = named
    return found


def rows(document: str) -> list[re.Match[str]]:
    text = (ROOT / document).read_text()
    table = text.partition("## Claims and their tests")[2].partition("\n## ")[0]
    return [row for row in _ROW.finditer(table) if row["claim"] not in ("claim", "---")]


@cache
def functions(file: str) -> frozenset[str]:
    tree = ast.parse((ROOT / file).read_text())
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, kinds))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_there_are_claims(document: str) -> None:
    assert len(rows(document)) > DOCUMENTS[document]


@pytest.mark.parametrize("claim", claims())
def test_each_claim_has_tests_that_exist(claim: str) -> None:
    named = claims()[claim]
    assert named, "no test is named"
    for file, name in named:
        assert name in functions(file), f"{file} has no {name}"
