"""The table of mounts, read from the kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from unionfuse.fuse import table

if TYPE_CHECKING:
    from pathlib import Path

MOUNTINFO = rb"""22 28 0:20 / /proc rw,nosuid - proc proc rw
90 28 0:77 / /mnt/a\040b\134c rw,relatime shared:5 - fuse.unionfuse unionfuse rw,user_id=0
91 28 0:78 / /mnt/twice ro - fuse.unionfuse some\040name ro
92 28 0:79 / /mnt/twice rw - fuse.unionfuse unionfuse rw
93 28 0:80 / /mnt/other rw - fuse.sshfs host: rw
94 28 0:81 / /mnt/fuse.unionfuse rw - tmpfs tmpfs rw
"""


@pytest.fixture(autouse=True)
def _mountinfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mountinfo").write_bytes(MOUNTINFO)
    monkeypatch.setattr(table, "_MOUNTINFO", tmp_path / "mountinfo")


def test_only_unions_are_listed_with_their_names_unescaped() -> None:
    found = [record.mountpoint for record in table.mounted()]
    assert found == ["/mnt/a b\\c", "/mnt/twice", "/mnt/twice"]


def test_of_two_on_one_mountpoint_the_topmost_is_found() -> None:
    found = table.find(b"/mnt/twice")
    assert found is not None
    assert found.device == "0:79"


def test_what_is_no_union_is_not_found() -> None:
    assert table.find(b"/mnt/other") is None


def test_a_mount_without_a_record_has_no_pid() -> None:
    assert all(record.pid == 0 for record in table.mounted())
