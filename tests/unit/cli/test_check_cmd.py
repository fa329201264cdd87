"""`unionfuse check`: its lines, its JSON and its exit codes."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from click.testing import CliRunner

from unionfuse.cli.group import cli

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["check", *map(str, arguments)])


def broken(base: Path) -> tuple[str, str, Path]:
    """Make an upper with a whiteout over nothing, and another that nobody can mend."""
    (base / "upper.work/work").mkdir(parents=True)
    for name in ("upper", "lower"):
        (base / name).mkdir()
    (base / "upper/.wh.none").touch()
    (base / "upper/.wh.data").write_text("data")
    return "--lower", str(base / "lower"), base / "upper"


def test_a_line_tells_each_thing_that_is_wrong_and_the_code_that_there_is_one(
    tmp_path: Path,
) -> None:
    result = run(*broken(tmp_path))
    assert (result.exit_code, result.stderr) == (4, "")
    assert result.stdout == (
        "reserved-name: /.wh.data: a file that is taken for a whiteout, and never shown\n"
        "whiteout-over-nothing: /.wh.none: no lower has none there"
        " [--repair: remove the whiteout]\n"
    )


def test_what_is_mended_is_told_and_what_is_left_keeps_the_code(tmp_path: Path) -> None:
    arguments = broken(tmp_path)
    result = run("--repair", *arguments)
    assert result.exit_code == 4
    assert result.stdout.endswith("no lower has none there [mended]\n")
    os.unlink(tmp_path / "upper/.wh.data")
    assert run("--repair", *arguments).exit_code == run(*arguments).exit_code == 0


def test_when_all_is_mended_nothing_is_left(tmp_path: Path) -> None:
    arguments = broken(tmp_path)
    os.unlink(tmp_path / "upper/.wh.data")
    assert run("--repair", *arguments).exit_code == 0


def test_json_is_a_list_of_objects(tmp_path: Path) -> None:
    result = run("--json", *broken(tmp_path))
    assert result.exit_code == 4
    assert json.loads(result.stdout)[1] == {
        "kind": "whiteout-over-nothing",
        "place": "upper",
        "path": "/.wh.none",
        "detail": "no lower has none there",
        "repair": "remove the whiteout",
        "repaired": False,
    }


def test_what_could_not_be_checked_is_said_on_stderr(tmp_path: Path) -> None:
    result = run("--json", tmp_path)
    assert (result.exit_code, json.loads(result.stdout)) == (0, [])
    [workdir, lowers] = result.stderr.splitlines()
    assert workdir == f"unionfuse: no workdir {tmp_path}.work: give --workdir to have it checked"
    assert lowers.startswith("unionfuse: without --lower nothing was checked that the lowers")


def test_a_workdir_that_is_given_must_be_there(tmp_path: Path) -> None:
    result = run("--workdir", tmp_path / "none", tmp_path)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"unionfuse: workdir {tmp_path}/none: no such directory\n"
