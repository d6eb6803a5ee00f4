"""Fields of log lines have the names that the documents give, and no others."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
LEVELS = {"debug", "info", "warning", "error"}


def logged(tree: ast.Module) -> Iterator[str]:
    """Yield the names of the fields of all log calls."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(value=owner, attr=level), keywords=fields) if (
                level in LEVELS and ast.unparse(owner).lower() in {"log", "_log"}
            ):
                yield from (field.arg for field in fields if field.arg is not None)


def test_the_fields_of_log_lines_are_those_that_are_documented() -> None:
    sources = [
        path
        for part in ("common/wgmap", "agent/wgmap_agent", "cluster/wgmap_cluster")
        for path in (ROOT / part).rglob("*.py")
    ]
    used = {name for path in sources for name in logged(ast.parse(path.read_text()))}
    text = (ROOT / "docs/operations.md").read_text()
    section = text.partition("### Logs")[2].partition("\n#")[0]
    rows = re.findall(r"^\| (`.*?) \|", section, flags=re.MULTILINE)
    documented = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert len(used) > 20
    assert used == documented
