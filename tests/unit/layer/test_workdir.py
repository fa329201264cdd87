"""The workdir: claimed by one mount at a time, emptied of what a crash has left."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from unionfuse.layer.workdir import Workdir, WorkdirError, remove_tree

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from unionfuse.layer.stack import LayerStack


@contextlib.contextmanager
def claimed(stack: LayerStack, path: Path) -> Iterator[Workdir]:
    assert stack.upper is not None
    with contextlib.closing(Workdir.claim(os.fsencode(path), stack.upper, 0.1)) as workdir:
        yield workdir


def test_it_is_made_for_its_user_alone(stack: LayerStack, tmp_path: Path) -> None:
    with claimed(stack, tmp_path / "work"):
        assert (tmp_path / "work").stat().st_mode & 0o777 == 0o700
        assert sorted(os.listdir(tmp_path / "work")) == ["index", "work"]


def test_what_a_crash_has_left_is_removed(stack: LayerStack, tmp_path: Path) -> None:
    work = tmp_path / "work/work"
    (work / "#1/sub/deeper").mkdir(parents=True)
    (work / "#1/sub/file").write_text("")
    (work / "#2").write_text("")
    (work / "#3").symlink_to(tmp_path)
    for name in ("#1/sub/deeper", "#1/sub", "#1"):
        (work / name).chmod(0)
    with claimed(stack, tmp_path / "work"):
        assert os.listdir(work) == []
    assert tmp_path.exists()


def test_the_index_is_kept(stack: LayerStack, tmp_path: Path) -> None:
    (tmp_path / "work/index").mkdir(parents=True)
    (tmp_path / "work/index/00fb").write_text("data")
    with claimed(stack, tmp_path / "work") as workdir:
        assert os.listdir(tmp_path / "work/index") == ["00fb"]
        assert os.fstat(workdir.index.fd()).st_ino == (tmp_path / "work/index").stat().st_ino


def test_directories_of_mode_0_as_the_kernel_makes_them_are_taken(
    stack: LayerStack, tmp_path: Path
) -> None:
    for name in ("work", "index"):
        (tmp_path / "work" / name).mkdir(parents=True)
        (tmp_path / "work" / name).chmod(0)
    with claimed(stack, tmp_path / "work") as workdir:
        os.mkdir(workdir.temp_name(), dir_fd=workdir.work_fd)


def test_a_workdir_in_use_is_refused(stack: LayerStack, tmp_path: Path) -> None:
    with (
        claimed(stack, tmp_path / "work"),
        pytest.raises(WorkdirError, match="in use by another mount"),
        claimed(stack, tmp_path / "work"),
    ):
        pass


def test_an_upper_in_use_is_refused(stack: LayerStack, tmp_path: Path) -> None:
    with (
        claimed(stack, tmp_path / "work"),
        pytest.raises(WorkdirError, match=r"upper .*in use by another mount"),
        claimed(stack, tmp_path / "other-work"),
    ):
        pass


def test_it_is_free_again_when_it_is_closed(stack: LayerStack, tmp_path: Path) -> None:
    for _ in range(2):
        with claimed(stack, tmp_path / "work"):
            pass


@pytest.mark.parametrize("feature", ["volatile", "something-new"])
def test_what_must_not_be_mounted_again_unseen_is_refused(
    stack: LayerStack, tmp_path: Path, feature: str
) -> None:
    (tmp_path / "work/work/incompat" / feature).mkdir(parents=True)
    with pytest.raises(WorkdirError, match=feature), claimed(stack, tmp_path / "work"):
        pass
    assert (tmp_path / "work/work/incompat" / feature).exists()


@pytest.mark.root
def test_another_filesystem_than_the_uppers_is_refused(stack: LayerStack, tmp_path: Path) -> None:
    (tmp_path / "memory").mkdir()
    command = ["mount", "-t", "tmpfs", "tmpfs", str(tmp_path / "memory")]
    subprocess.run(command, check=True, timeout=30)
    try:
        with (
            pytest.raises(WorkdirError, match="different filesystems"),
            claimed(stack, tmp_path / "memory/work"),
        ):
            pass
    finally:
        subprocess.run(["umount", str(tmp_path / "memory")], check=True, timeout=30)


def test_a_file_is_no_workdir(stack: LayerStack, tmp_path: Path) -> None:
    (tmp_path / "work").write_text("")
    with pytest.raises(NotADirectoryError), claimed(stack, tmp_path / "work"):
        pass


def test_a_tree_is_removed_without_following_its_symlinks(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").write_text("")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/link").symlink_to("../outside")
    fd = os.open(tmp_path, os.O_PATH)
    remove_tree(fd, b"tree")
    os.close(fd)
    assert sorted(os.listdir(tmp_path)) == ["outside"]
    assert os.listdir(tmp_path / "outside") == ["file"]


def test_temporary_names_are_all_different(stack: LayerStack, tmp_path: Path) -> None:
    with claimed(stack, tmp_path / "work") as workdir:
        assert len({workdir.temp_name() for _ in range(100)}) == 100


def test_the_mark_of_a_volatile_mount_is_the_kernels(stack: LayerStack, tmp_path: Path) -> None:
    with claimed(stack, tmp_path / "work") as workdir:
        workdir.mark_volatile()
    mark = tmp_path / "work/work/incompat/volatile"
    assert os.listdir(mark) == ["dirty"]
    with pytest.raises(WorkdirError, match="volatile"), claimed(stack, tmp_path / "work"):
        pass
    shutil.rmtree(tmp_path / "work/work/incompat")
    with claimed(stack, tmp_path / "work"):
        pass
