"""The references are made from the code, and the code has no number that they do not know."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from wgmap.metrics.families import Catalogue, is_flat
from wgmap_agent.runner import catalogue as agent
from wgmap_cluster.fsm.results import Taken
from wgmap_cluster.raft.figures import Figures
from wgmap_cluster.replica import catalogue as server

ROOT = Path(__file__).resolve().parents[3]
COUNTING = {"add", "count"}


def test_the_references_are_what_the_code_says() -> None:
    command = [sys.executable, str(ROOT / "scripts/reference.py"), "--check"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def names_of(expression: ast.expr) -> Iterator[str]:
    """Yield the names that an expression can have; what is not known of them is a ``*``."""
    match expression:
        case ast.Constant(str() as text):
            yield text
        case ast.JoinedStr(parts):
            yield "".join(str(p.value) if isinstance(p, ast.Constant) else "*" for p in parts)
        case ast.IfExp(body=body, orelse=orelse):
            yield from names_of(body)
            yield from names_of(orelse)
        case _:
            pass


def counted_in(*paths: Path) -> set[str]:
    """Return the names of all counters that these sources count."""
    return {name for path in paths for name in _counted(ast.parse(path.read_text()))}


def _counted(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(value=owner, attr=attr), args=[first, *_]) if (
                attr in COUNTING and ast.unparse(owner).endswith(("counters", "_steps"))
            ):
                yield from names_of(first)
            case ast.AugAssign(target=ast.Subscript(value=owner, slice=name)) if ast.unparse(
                owner
            ).endswith("counters"):
                yield from names_of(name)


def check(counted: set[str], catalogue: Catalogue) -> None:
    known = {one.name for one in catalogue}
    several = tuple(one.stem for one in catalogue if one.stem)
    missing = {name for name in counted - known if not name.startswith(several or "\0")}
    assert not missing, f"counted, but not in the catalogue: {sorted(missing)}"


def test_every_counter_of_the_agent_is_described() -> None:
    counted = counted_in(*(ROOT / "agent/wgmap_agent/engine").glob("*.py"))
    runner = {path.name: path for path in (ROOT / "agent/wgmap_agent/runner").glob("*.py")}
    run = counted_in(runner.pop("executor.py"))
    others = counted_in(*runner.values())
    assert (len(counted) > 70, len(run) > 6, len(others) > 3) == (True, True, True)
    check(counted | others | {f"run.{name}" for name in run}, agent.COUNTERS)


@pytest.mark.parametrize(
    ("folder", "catalogue", "least"),
    [("responder", server.RESPONDER, 25), ("replica", server.REPLICA, 14)],
)
def test_every_counter_of_a_server_is_described(
    folder: str, catalogue: Catalogue, least: int
) -> None:
    counted = counted_in(*(ROOT / "cluster/wgmap_cluster" / folder).glob("*.py"))
    assert len(counted) >= least
    if "register.*" in counted:  # what became of a register
        counted = counted - {"register.*"} | {f"register.{taken}" for taken in Taken}
    check(counted, catalogue)


def test_every_figure_of_the_log_is_described() -> None:
    figures = Figures()
    figures.synced(0.001)
    counted = {name for name in figures.named() if not is_flat(name)}
    assert "syncs" in counted
    check(counted, server.LOG)
