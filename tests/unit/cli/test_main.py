"""The command line: what it teaches, what it refuses, and how it ends."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import click
import pytest
from click.testing import CliRunner

from unionfuse import __version__
from unionfuse.cli.group import cli
from unionfuse.fuse import unmounting

if TYPE_CHECKING:
    from collections.abc import Iterator
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
        ["check"],
        ["check", "upper", "lower"],
        ["convert", "upper"],
        ["convert", "--to", "aufs"],
        ["diff"],
        ["diff", "upper", "more"],
        ["snapshotter", "more"],
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
        (["check"], ["--lower", "--workdir", "--repair", "--all", "--json", "Exit codes"]),
        (["convert"], ["--to", "--workdir", "overlayfs", "userxattr", "aufs", "Examples"]),
        (["diff"], ["--lower", "--json", "--null", "deleted", "Examples"]),
        (["snapshotter"], ["--address", "--root", "proxy_plugins", "-o OPT"]),
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


HEAVY = {"trio", "pyfuse3", "unionfuse.union", "unionfuse.layer", "unionfuse.fuse.daemon"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--version"],
        ["--help"],
        ["mount", "--help"],
        ["umount", "--help"],
        ["check", "--help"],
        ["convert", "--help"],
        ["diff", "--help"],
        ["snapshotter", "--help"],
        ["ls"],
        ["nonsense"],
        ["mount", "lower"],
        ["mount", "--io", "nonsense", "lower", "upper", "mnt"],
    ],
    ids=" ".join,
)
def test_what_mounts_nothing_does_not_load_what_mounts(arguments: list[str]) -> None:
    script = (
        "import sys, contextlib\n"
        "from unionfuse.cli.group import cli\n"
        f"with contextlib.suppress(SystemExit): cli({arguments!r})\n"
        f"print(sorted({HEAVY!r} & set(sys.modules)), file=sys.stderr)\n"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr.splitlines()[-1] == "[]"


def test_a_command_loads_no_other_command() -> None:
    script = (
        "import sys, contextlib\n"
        "from unionfuse.cli.group import cli\n"
        "with contextlib.suppress(SystemExit): cli(['umount', '--help'])\n"
        "print([name for name in sys.modules if name.endswith('_cmd')], file=sys.stderr)\n"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr.strip() == "['unionfuse.cli.umount_cmd']"


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


def test_passthrough_is_of_the_kernel_session_alone(tmp_path: Path) -> None:
    result = run("mount", "--session", "pyfuse3", "--io", "passthrough", "lower", "upper", "mnt")
    assert (result.exit_code, result.stderr) == (
        1,
        "unionfuse: --io passthrough needs --session kernel: pyfuse3 has cached data only\n",
    )


@pytest.mark.parametrize("microseconds", ["-1", "10001", "x"])
def test_the_time_of_polling_is_a_number_in_its_range(microseconds: str) -> None:
    assert run("mount", "--poll-us", microseconds, "lower", "upper", "mnt").exit_code == 2


def test_what_the_kernel_refuses_is_told_without_its_number(monkeypatch, tmp_path: Path) -> None:
    def refuse(mountpoint: bytes, *, lazy: bool) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path))

    monkeypatch.setattr(unmounting, "unmount_and_wait", refuse)
    result = run("umount", "mnt")
    assert (result.exit_code, result.stderr) == (1, f"unionfuse: {tmp_path}: Permission denied\n")


def test_an_interrupted_command_ends_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(mountpoint: bytes, *, lazy: bool) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(unmounting, "unmount_and_wait", interrupt)
    result = run("umount", "mnt")
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", "")


@pytest.mark.parametrize(
    ("arguments", "code", "stdout"),
    [(["-V"], 0, f"unionfuse {__version__}\n"), (["nonsense"], 2, ""), (["umount", "/"], 1, "")],
)
def test_the_program_ends_with_all_that_it_has_printed(
    arguments: list[str], code: int, stdout: str
) -> None:
    command = [sys.executable, "-c", "from unionfuse.cli import main\nmain()", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (code, stdout)
    assert bool(done.stderr) == (code != 0)


_INTERRUPTED = """
import os, signal, sys
class Finder:
    def find_spec(name, *_):
        if name == "unionfuse.cli.ls_cmd":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder)
from unionfuse.cli import main
main()
"""


def test_an_interrupt_before_the_command_begins_ends_it_without_a_word() -> None:
    command = ["env", "--default-signal=INT", sys.executable, "-c", _INTERRUPTED, "ls"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")


@pytest.mark.parametrize(
    ("closed", "arguments", "told"),
    [
        (">&-", "image ls", "unionfuse: Bad file descriptor\n"),
        (">&-", "image save x:1", "unionfuse: standard output: Bad file descriptor\n"),
        ("<&-", "image load -", "unionfuse: Bad file descriptor\n"),
        ("2>&-", "image rm x:2", ""),
        ("| true", "image ls", ""),
    ],
)
def test_a_stream_that_is_closed_makes_no_traceback(
    closed: str, arguments: str, told: str, tmp_path: Path
) -> None:
    program = f"{sys.executable} -m unionfuse"
    script = f"""
        set -o pipefail
        tar -cf {tmp_path}/tar --files-from=/dev/null; {program} image import {tmp_path}/tar x:1
        {program} {arguments} {closed}
    """
    environment = {**os.environ, "UNIONFUSE_ROOT": str(tmp_path / "store")}
    done = subprocess.run(
        ["bash", "-c", script], env=environment, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, told)


def test_what_a_terminal_does_not_have_is_shown_otherwise(tmp_path: Path) -> None:
    (tmp_path / "upper" / "caf\u00e9 \u2603").mkdir(parents=True)
    command = [sys.executable, "-m", "unionfuse", "diff", str(tmp_path / "upper")]
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run(command, env=environment, capture_output=True, timeout=60, check=True)
    assert b"/caf\xe9 \\u2603\n" in done.stdout


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


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the words of every command, those of groups below it too."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        yield (*path, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


@pytest.mark.parametrize("words", list(commands(cli)), ids=" ".join)
def test_examples_in_help_keep_their_lines(words: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(cli, [*words, "--help"]).output
    assert "\\b" not in shown
    assert shown.startswith("Usage: ")
