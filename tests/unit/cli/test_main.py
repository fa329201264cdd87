"""The command line: what it teaches, what it refuses, and how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from unionfuse import __version__
from unionfuse.cli.main import cli

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result


def run(*arguments: str | bytes) -> Result:
    return CliRunner().invoke(cli, [os.fsdecode(argument) for argument in arguments])


@pytest.mark.parametrize(
    "arguments",
    [
        ["mount"],
        ["mount", "lower"],
        ["mount", "lower", "upper"],
        ["mount", "lower", "upper", "mnt", "more"],
        ["mount", "--read-only", "lower", "upper", "mnt"],
        ["mount", "--nonsense", "lower", "upper", "mnt"],
        ["mount", "--session", "nonsense", "lower", "upper", "mnt"],
        ["umount"],
        ["umount", "one", "two"],
        ["ls", "more"],
        ["nonsense"],
    ],
    ids=" ".join,
)
def test_a_command_line_without_sense_ends_with_2(arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Usage:" in result.stderr


@pytest.mark.parametrize(
    ("command", "taught"),
    [
        ([], ["A first mount", "Exit codes", "mount", "umount", "ls"]),
        (["mount"], ["--workdir", "--read-only", "volatile", "timeout=SEC", "Examples"]),
        (["umount"], ["--lazy", "MNT"]),
        (["ls"], ["--json"]),
    ],
)
def test_help_teaches(command: list[str], taught: list[str]) -> None:
    result = run(*command, "--help")
    assert result.exit_code == 0
    for text in taught:
        assert text in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 96


@pytest.mark.parametrize("option", ["--version", "-V"])
def test_the_version_is_told(option: str) -> None:
    assert run(option).stdout == f"unionfuse {__version__}\n"


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["mount", "--help"], ["ls"]])
def test_what_mounts_nothing_does_not_load_what_mounts(arguments: list[str]) -> None:
    script = (
        "import sys, contextlib\n"
        "from unionfuse.cli.main import cli\n"
        f"with contextlib.suppress(SystemExit): cli({arguments!r})\n"
        "print(sorted({'trio', 'pyfuse3'} & set(sys.modules)), file=sys.stderr)\n"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr.strip() == "[]"


def test_a_module_is_run_as_the_program() -> None:
    command = [sys.executable, "-m", "unionfuse", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == f"unionfuse {__version__}\n"


def test_a_failure_is_one_line_on_stderr_and_ends_with_1(tmp_path: Path) -> None:
    (tmp_path / "mnt").mkdir()
    result = run("mount", "--read-only", str(tmp_path / "missing"), str(tmp_path / "mnt"))
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == (
        f"unionfuse: lower layer {tmp_path}/missing: No such file or directory\n"
    )


def test_an_unknown_mount_option_is_a_failure(tmp_path: Path) -> None:
    result = run("mount", "-o", "ro,nonsense", str(tmp_path), "upper", "mnt")
    assert (result.exit_code, result.stderr) == (1, "unionfuse: unknown mount option: nonsense\n")


def test_a_path_of_any_bytes_makes_one_printable_line(tmp_path: Path) -> None:
    result = run("mount", "--read-only", os.fsencode(tmp_path) + b"/\xff\n\x1b[1m", str(tmp_path))
    assert result.exit_code == 1
    [line] = result.stderr.splitlines()
    assert line.isprintable()


def test_what_is_not_mounted_can_not_be_unmounted(tmp_path: Path) -> None:
    result = run("umount", str(tmp_path))
    assert result.exit_code == 1
    assert result.stderr == f"unionfuse: {tmp_path}: no unionfuse mount there\n"


def test_the_mounts_are_told_as_json() -> None:
    result = run("ls", "--json")
    assert result.exit_code == 0
    assert isinstance(json.loads(result.stdout), list)
