"""The table of mounts, read from the kernel."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from unionfuse.fuse import mountinfo, table
from unionfuse.fuse.options import MountPlan

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
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/mountinfo").write_bytes(MOUNTINFO)
    monkeypatch.setattr(mountinfo, "_PROC", str(tmp_path / "proc"))
    monkeypatch.setattr(table.rundir, "candidates", lambda: [str(tmp_path / "records")])


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


PLAN = MountPlan(
    lowers=(b"/layers/top:=\n", b"/layers/\xff"),
    upper=b"/layers/upper",
    workdir=b"/layers/work",
    mountpoint=b"/mnt/twice",
)


def test_a_record_tells_what_the_daemon_was_given(tmp_path: Path) -> None:
    assert table.write_record(PLAN, "kernel") == str(tmp_path / "records" / "0:79")
    found = table.find(b"/mnt/twice")
    assert found is not None
    assert [os.fsencode(lower) for lower in found.lowers] == list(PLAN.lowers)
    assert (found.upper, found.workdir) == ("/layers/upper", "/layers/work")
    assert (found.session, found.pid) == ("kernel", os.getpid())


def test_a_record_without_an_upper_tells_none() -> None:
    table.write_record(MountPlan((b"/l",), None, None, b"/mnt/twice"), "kernel")
    found = table.find(b"/mnt/twice")
    assert found is not None
    assert (found.lowers, found.upper, found.workdir) == (("/l",), None, None)


def test_a_record_is_for_its_owner_alone(tmp_path: Path) -> None:
    table.write_record(PLAN, "kernel")
    assert (tmp_path / "records").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "records" / "0:79").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"nonsense",
        b"mountpoint=/mnt/twice\0",
        b"mountpoint=/mnt/twice\0session=kernel\0pid=x\0started=0\0",
    ],
)
def test_a_record_that_is_none_is_passed_over(tmp_path: Path, broken: bytes) -> None:
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "0:79").write_bytes(broken)
    assert table.find(b"/mnt/twice") == table.MountRecord("/mnt/twice", "0:79")


@pytest.mark.parametrize("started", [0, 1])
def test_a_record_of_another_process_or_mount_is_passed_over(tmp_path: Path, started: int) -> None:
    table.write_record(PLAN, "kernel")
    path = tmp_path / "records" / "0:79"
    if started:
        path.write_bytes(path.read_bytes().replace(b"started=", b"started=1"))
    else:
        path.rename(path.with_name("0:77"))
    assert [record.pid for record in table.mounted()] == [0, 0, 0]


def test_a_fifo_or_a_link_in_the_place_of_a_record_is_passed_over(tmp_path: Path) -> None:
    table.write_record(PLAN, "kernel")
    record = tmp_path / "records" / "0:79"
    record.rename(tmp_path / "elsewhere")
    record.symlink_to(tmp_path / "elsewhere")
    os.mkfifo(record.with_name("0:78"))
    assert [found.pid for found in table.mounted()] == [0, 0, 0]


def test_at_the_end_a_record_is_removed(tmp_path: Path) -> None:
    path = table.write_record(PLAN, "kernel")
    assert path is not None
    table.remove_record(path)
    assert list((tmp_path / "records").iterdir()) == []


def test_that_of_a_later_mount_with_the_same_number_is_left(tmp_path: Path) -> None:
    path = table.write_record(PLAN, "kernel")
    assert path is not None
    later = tmp_path / "records" / "0:79"
    later.write_bytes(later.read_bytes().replace(b"pid=", b"pid=1"))
    table.remove_record(path)
    assert later.exists()
