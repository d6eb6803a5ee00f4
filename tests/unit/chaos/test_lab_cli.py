from pathlib import Path

import pytest

from wgmap_chaos.main import main, parser


@pytest.mark.parametrize(
    "arguments",
    [
        ["lab"],
        ["lab", "sideways"],
        ["lab", "up", "--delay", "-1"],
        ["lab", "up", "--delay", "soon"],
        ["lab", "up", "--loss", "101"],
        ["lab", "set", "--loss", "nan"],
        ["lab", "up", "--servers", "many"],
        ["lab", "down", "a1"],
    ],
)
def test_wrong_usage_ends_with_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2


def test_numbers_out_of_bounds_end_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["lab", "up", "--servers", "10", "--dir", str(tmp_path / "lab")]) == 2
    assert "--servers must be 1 to 9, not 10" in capsys.readouterr().err
    assert not (tmp_path / "lab").exists()


def test_defaults_are_those_of_the_contract() -> None:
    options = parser().parse_args(["lab", "up"])
    assert (options.servers, options.agents, options.delay, options.loss) == (3, 4, 0.0, 0.0)
    options = parser().parse_args(["lab", "set", "--loss", "5"])
    assert (options.delay, options.loss) == (None, 5.0)


@pytest.mark.parametrize(
    "arguments",
    [["lab", "--dir", "d", "--json", "down"], ["lab", "down", "--dir", "d", "--json"]],
)
def test_common_options_stand_before_or_after_the_command(arguments: list[str]) -> None:
    options = parser().parse_args(arguments)
    assert options.dir == Path("d")
    assert options.json
