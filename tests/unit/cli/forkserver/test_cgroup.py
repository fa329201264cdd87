"""A process goes into the control group of another, or says that it can not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from unionfuse.cli.forkserver import cgroup

if TYPE_CHECKING:
    from pathlib import Path

OURS, OTHER = 1, 2


class Groups:
    """Processes in control groups of version 2, mounted at a directory."""

    def __init__(self, mount: Path) -> None:
        self.mount = mount
        self.of = {OURS: "1:cpu:/\n0::/ours\n", OTHER: "1:cpu:/\n0::/other\n"}
        for name in ("ours", "other"):
            (mount / name).mkdir(parents=True)

    def read(self, pid: int) -> str:
        file = self.mount / "other" / "cgroup.procs"
        if pid == OURS and file.is_file() and file.read_text() == "0":
            return self.of[pid].replace("/ours", "/other")
        return self.of[pid]


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Groups:
    made = Groups(tmp_path / "cgroup")
    monkeypatch.setattr(cgroup, "_read", made.read)
    monkeypatch.setattr(cgroup, "_MOUNTS", (str(tmp_path / "none"), str(made.mount)))
    monkeypatch.setattr(cgroup.os, "getpid", lambda: OURS)
    return made


def test_one_that_is_there_stays(groups: Groups) -> None:
    groups.of[OTHER] = groups.of[OURS]
    assert cgroup.join_that_of(OTHER)
    assert not (groups.mount / "ours" / "cgroup.procs").exists()


def test_one_that_is_elsewhere_moves(groups: Groups) -> None:
    assert cgroup.join_that_of(OTHER)
    assert (groups.mount / "other" / "cgroup.procs").read_text() == "0"


def test_one_that_may_not_move_says_so(groups: Groups) -> None:
    (groups.mount / "other" / "cgroup.procs").mkdir()  # cannot be written to
    assert not cgroup.join_that_of(OTHER)


def test_groups_of_version_1_have_to_be_the_same(groups: Groups) -> None:
    groups.of[OTHER] = "1:cpu:/elsewhere\n0::/other\n"
    assert not cgroup.join_that_of(OTHER)
