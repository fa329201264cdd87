"""`unionfuse convert`: what it says, and how it ends."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from click.testing import CliRunner

from unionfuse.cli.convert_cmd import convert as command
from unionfuse.cli.group import cli
from unionfuse.offline.forms import FORMS

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["convert", *map(str, arguments)])


def test_it_says_nothing_when_it_is_done(tmp_path: Path) -> None:
    (tmp_path / ".wh.gone").touch()
    result = run("--to", "userxattr", tmp_path)
    assert (result.exit_code, result.output) == (0, "")
    assert os.listdir(tmp_path) == ["gone"]


def test_each_obstacle_is_one_line_and_nothing_is_changed(tmp_path: Path) -> None:
    for name in (".wh.a", ".wh.b"):
        (tmp_path / name).write_text("data")
    result = run("--to", "userxattr", tmp_path)
    assert (result.exit_code, result.stdout) == (1, "")
    assert sorted(result.stderr.splitlines()) == [
        f"unionfuse: /{name}: a file that is taken for a whiteout: look at it first"
        for name in (".wh.a", ".wh.b")
    ]


def test_a_form_is_to_be_given_and_known(tmp_path: Path) -> None:
    assert run(tmp_path).exit_code == run("--to", "tar", tmp_path).exit_code == 2


def test_all_forms_can_be_given() -> None:
    [option] = [each for each in command.params if each.name == "form"]
    assert list(FORMS) == list(option.type.choices)
