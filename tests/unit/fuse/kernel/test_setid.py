"""setuid and setgid of files that the kernel writes past the daemon."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from unionfuse.fuse.kernel import setid
from unionfuse.fuse.kernel.setid import SetidWatch

NODE, PID, USER = 7, 100, 1000


class Fs:
    """One node: its mode, its mtime, its group."""

    def __init__(self, mode: int) -> None:
        self.mode, self.mtime, self.gid = mode, 1, USER

    def getattr(self, nodeid: int) -> SimpleNamespace:
        st = SimpleNamespace(st_mode=self.mode, st_mtime_ns=self.mtime, st_gid=self.gid)
        return SimpleNamespace(st=st)

    def clear_mode_bits(self, nodeid: int, bits: int) -> None:
        self.mode &= ~bits

    def written(self) -> None:
        self.mtime += 1


@pytest.fixture(autouse=True)
def _nobody_is_privileged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setid, "may_keep_suid", lambda pid, uid: uid == 0)
    monkeypatch.setattr(setid, "is_in_group", lambda pid, gid, group: gid == group)


def watch(fs: Fs, uid: int = USER) -> SetidWatch:
    watch = SetidWatch(fs)
    watch.opened_to_write(NODE, PID, uid, USER)
    return watch


def test_a_file_that_was_written_loses_its_bits() -> None:
    fs = Fs(0o106755)
    watched = watch(fs)
    fs.written()
    watched.check(NODE)
    assert fs.mode == 0o100755


def test_a_file_that_was_not_written_keeps_them() -> None:
    fs = Fs(0o106755)
    watch(fs).check(NODE)
    assert fs.mode == 0o106755


def test_a_time_that_its_owner_sets_is_no_write() -> None:
    fs = Fs(0o104755)
    watched = watch(fs)
    fs.mtime = 5
    watched.changed(NODE)
    watched.check(NODE)
    assert fs.mode == 0o104755


def test_bits_that_come_while_it_is_open_are_watched_too() -> None:
    fs = Fs(0o100755)
    watched = watch(fs)
    fs.written()
    watched.check(NODE)
    fs.mode = 0o104755
    watched.changed(NODE)
    watched.check(NODE)
    assert fs.mode == 0o104755
    fs.written()
    watched.closed(NODE)
    assert fs.mode == 0o100755


def test_setgid_without_execution_stays_for_members_of_the_group() -> None:
    fs = Fs(0o102644)
    watched = watch(fs)
    fs.written()
    watched.check(NODE)
    assert fs.mode == 0o102644


def test_setgid_without_execution_goes_for_others() -> None:
    fs = Fs(0o102644)
    fs.gid = 0
    watched = watch(fs)
    fs.written()
    watched.check(NODE)
    assert fs.mode == 0o100644


def test_who_may_keep_them_does() -> None:
    fs = Fs(0o104755)
    watched = watch(fs, uid=0)
    fs.written()
    watched.closed(NODE)
    assert fs.mode == 0o104755


def test_nothing_is_watched_after_the_last_close() -> None:
    fs = Fs(0o100755)
    watched = watch(fs)
    watched.closed(NODE)
    fs.mode = 0o104755
    watched.changed(NODE)
    fs.written()
    watched.check(NODE)
    assert fs.mode == 0o104755
