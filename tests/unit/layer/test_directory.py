"""Directories of a layer: reached one component at a time, however deep, whoever made them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from unionfuse.layer.directory import LayerDir

if TYPE_CHECKING:
    from pathlib import Path

    from unionfuse.layer.stack import LayerStack


def below(directory: LayerDir, *names: bytes) -> LayerDir:
    for name in names:
        directory = LayerDir(directory, name)
    return directory


def test_a_tree_deeper_than_path_max_is_reached(stack: LayerStack, tmp_path: Path) -> None:
    names = [b"n" * 255] * 40
    fd = os.open(tmp_path / "lower", os.O_PATH)
    for name in names:
        os.mkdir(name, dir_fd=fd)
        child = os.open(name, os.O_PATH, dir_fd=fd)
        os.close(fd)
        fd = child
    deepest = os.fstat(fd).st_ino
    os.close(fd)
    assert os.fstat(below(stack.lowers[0], *names).fd()).st_ino == deepest


@pytest.mark.parametrize("target", ["/", "..", "dir", "."])
def test_a_symlink_is_not_walked(stack: LayerStack, tmp_path: Path, target: str) -> None:
    (tmp_path / "lower/dir").mkdir()
    (tmp_path / "lower/link").symlink_to(target)
    with pytest.raises(NotADirectoryError):
        below(stack.lowers[0], b"link").fd()
    with pytest.raises(NotADirectoryError):
        below(stack.lowers[0], b"link", b"dir").fd()


def test_a_failed_walk_leaves_nothing_open(stack: LayerStack, tmp_path: Path) -> None:
    (tmp_path / "lower/a/b").mkdir(parents=True)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(FileNotFoundError):
        below(stack.lowers[0], b"a", b"b", b"missing").fd()
    stack.fds.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_no_more_descriptors_are_open_than_allowed(stack: LayerStack, tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for number in range(100):
        (tmp_path / f"lower/{number}").mkdir()
        below(stack.lowers[0], b"%d" % number).fd()
    assert len(os.listdir("/proc/self/fd")) == before + stack.fds.capacity == before + 16


def test_a_closed_directory_is_opened_again(stack: LayerStack, tmp_path: Path) -> None:
    (tmp_path / "lower/dir").mkdir()
    directory = below(stack.lowers[0], b"dir")
    before = os.fstat(directory.fd()).st_ino
    stack.fds.close()
    assert os.fstat(directory.fd()).st_ino == before


def test_a_deep_walk_does_not_push_the_others_out(stack: LayerStack, tmp_path: Path) -> None:
    names = [b"d"] * 30
    (tmp_path / "lower" / "/".join(["d"] * 30)).mkdir(parents=True)
    (tmp_path / "lower/other").mkdir()
    other = below(stack.lowers[0], b"other")
    fd = other.fd()
    below(stack.lowers[0], *names).fd()
    assert stack.fds.get(other) == fd


def test_a_rename_moves_what_is_below(stack: LayerStack, tmp_path: Path) -> None:
    (tmp_path / "upper/old/sub").mkdir(parents=True)
    assert stack.upper is not None
    moved = LayerDir(stack.upper, b"old")
    sub = LayerDir(moved, b"sub")
    before = os.fstat(sub.fd()).st_ino
    (tmp_path / "upper/old").rename(tmp_path / "upper/new")
    moved.name = b"new"
    stack.fds.close()
    assert os.fstat(sub.fd()).st_ino == before
