"""Programs of others are found as a shell finds them, root's too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unionfuse.container.programs import find_program

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_the_first_that_can_be_executed_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for directory, mode in (("a", 0o644), ("b", 0o755), ("c", 0o755)):
        (tmp_path / directory).mkdir()
        (tmp_path / directory / "tool").touch()
        (tmp_path / directory / "tool").chmod(mode)
    monkeypatch.setenv("PATH", f"{tmp_path}/a:{tmp_path}/b:{tmp_path}/c")
    assert find_program("none", "tool") == f"{tmp_path}/b/tool"


def test_a_name_with_a_slash_is_a_path(tmp_path: Path) -> None:
    (tmp_path / "tool").touch(mode=0o755)
    assert find_program(f"{tmp_path}/tool") == f"{tmp_path}/tool"
    assert find_program(f"{tmp_path}/none") is None


def test_a_directory_is_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tool").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_program("tool") is None


def test_programs_of_root_are_found_without_its_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr("unionfuse.container.programs._SBIN", ("/bin",))
    assert find_program("sh") == "/bin/sh"
