"""What every bench does with its figures."""

import argparse
from pathlib import Path

import measured
import pytest
import results
from measured import Notes, Value

Found = list[Value]


def draw(path: Path, found: Found) -> None:
    path.write_text(f"{len(found)} figures")


def options(*arguments: str) -> argparse.Namespace:
    return results.parser("a bench", "things").parse_args(arguments)


def test_what_was_found_is_printed_and_goes_where_the_options_say(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = Notes()
    bench.note("steady", 10, "agent", "cpu", 1.5, "%")
    bench.note("steady", 10, "crowd", "cpu", 2.5, "%", window=64)
    document = tmp_path / "page.md"
    document.write_text("before\n<!-- things -->\nold\n<!-- /things -->\nafter\n")
    chosen = options("--out", str(tmp_path / "new"), "--document", str(document))
    results.publish(chosen, "| a |\n| \\1 |", bench.values, measured.write, draw)
    printed = capsys.readouterr()
    assert printed.out == "| a |\n| \\1 |\n"
    assert "agent" in printed.err
    assert "crowd" not in printed.err
    assert measured.read(tmp_path / "new" / "things.csv") == bench.values
    assert (tmp_path / "new" / "things.png").read_text() == "2 figures"
    page = "before\n<!-- things -->\n| a |\n| \\1 |\n<!-- /things -->\nafter\n"
    assert document.read_text() == page


def test_nothing_is_written_that_was_not_asked_for(tmp_path: Path) -> None:
    def write(path: Path, found: Found) -> None:
        raise AssertionError

    results.publish(options(), "nothing", [], write, write)
    assert list(tmp_path.iterdir()) == []


def test_a_document_without_the_section_is_an_error(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- others -->\n<!-- /others -->\n")
    with pytest.raises(ValueError, match="no <!-- things -->"):
        results.publish(options("--document", str(page)), "", [], measured.write, draw)


def test_quantiles_are_values_that_were_measured() -> None:
    values = [3.0, 1.0, 2.0, 4.0]
    assert [results.quantile(values, part) for part in (0.0, 0.5, 0.51, 1.0)] == [1, 2, 3, 4]


def test_a_table_has_a_line_for_each_row() -> None:
    rows = [("1", "IPv4"), ("2", "")]
    wanted = "| number | family |\n|---|---|\n| 1 | IPv4 |\n| 2 |  |"
    assert results.markdown("number | family", rows) == wanted
