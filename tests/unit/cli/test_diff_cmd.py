"""`unionfuse diff`: its lines, its JSON and what it refuses."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from click.testing import CliRunner

from unionfuse.cli.group import cli

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

NOTE = "unionfuse: no origins in this upper: what is A may be C; give --lower to know\n"


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["diff", *map(str, arguments)])


def upper(base: Path) -> Path:
    path = base / "upper"
    (path / "dir").mkdir(parents=True)
    (path / "dir/.wh.gone").touch()
    (path / os.fsdecode(b"odd\n\xff")).touch()
    return path


def test_a_line_is_a_letter_and_a_printable_path(tmp_path: Path) -> None:
    result = run(upper(tmp_path))
    assert (result.exit_code, result.stderr) == (0, NOTE)
    assert result.stdout == "C /dir\nD /dir/gone\nA /odd\\n\\xff\n"


def test_with_nul_the_path_is_as_it_is(tmp_path: Path) -> None:
    assert run("-0", upper(tmp_path)).stdout_bytes == b"C /dir\0D /dir/gone\0A /odd\n\xff\0"


def test_json_is_a_list_of_objects(tmp_path: Path) -> None:
    found = json.loads(run("--json", upper(tmp_path)).stdout)
    assert found[1] == {"kind": "D", "path": "/dir/gone", "redirect": None}
    assert os.fsencode(found[2]["path"]) == b"/odd\n\xff"


def test_lowers_make_it_exact(tmp_path: Path) -> None:
    (tmp_path / "with:colon/dir/gone").mkdir(parents=True)
    result = run("--lower", f"{tmp_path}/with\\:colon", upper(tmp_path))
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith("C /dir\nD /dir/gone\nA /odd")


def test_what_is_no_directory_is_one_line(tmp_path: Path) -> None:
    result = run(tmp_path / "missing")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"unionfuse: {tmp_path}/missing: No such file or directory\n"
    assert run("--lower", ":", tmp_path).stderr == (
        "unionfuse: an empty lower layer: give LOWER[:LOWER...]\n"
    )


def test_two_forms_of_output_make_no_sense(tmp_path: Path) -> None:
    assert run("--json", "-0", tmp_path).exit_code == 2
