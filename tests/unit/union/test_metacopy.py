"""Files whose attributes are in the upper while their data is in a lower."""

from __future__ import annotations

import errno
import os
import struct
from typing import TYPE_CHECKING

import pytest

from tests.unit.union.test_redirect import redirect
from tests.unit.union.test_remove import in_lower
from unionfuse.record import replace
from unionfuse.union.fs import CopyUpNeeded

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.conftest import Stand

DATA = b"lower file"


def is_metacopy(path: Path) -> bool:
    return any(name.endswith(".overlay.metacopy") for name in os.listxattr(path))


CHANGES = {
    "chmod": lambda d: d.chmod(b"file", 0o600),
    "utimens": lambda d: d.utimens(b"file", 1, 2),
    "setxattr": lambda d: d.setxattr(b"file", b"user.test", b"value"),
    "link": lambda d: d.link(b"file", b"second"),
    "rename": lambda d: (d.rename(b"file", b"moved"), d.rename(b"moved", b"file")),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_attributes_copies_no_data(recording: Stand, change: str) -> None:
    in_lower(recording, "file")
    CHANGES[change](recording.d)
    assert recording.d.copied_up == 0
    assert is_metacopy(recording.upper / "file")
    assert (recording.upper / "file").read_bytes() == bytes(len(DATA))
    for d in (recording.d, recording.remount()):
        assert d.read(b"file") == DATA


def test_without_extended_attributes_the_data_comes_along(plain: Stand) -> None:
    plain.options = replace(plain.options, metacopy=False)
    in_lower(plain, "file")
    plain.d.chmod(b"file", 0o600)
    assert (plain.upper / "file").read_bytes() == DATA


@pytest.mark.parametrize("again", [False, True], ids=["same mount", "after a remount"])
def test_the_first_write_brings_the_data(recording: Stand, again: bool) -> None:
    in_lower(recording, "file")
    recording.d.utimens(b"file", 1, 2)
    if again:
        recording.remount()
    recording.d.write(b"file", b"UPPER")
    assert (recording.upper / "file").read_bytes() == b"UPPER file"
    assert not is_metacopy(recording.upper / "file")
    assert recording.remount().read(b"file") == b"UPPER file"


def test_a_truncation_to_nothing_brings_no_data(recording: Stand) -> None:
    in_lower(recording, "file")
    recording.d.chmod(b"file", 0o600)
    recording.d.truncate(b"file", 0)
    assert recording.d.copied_up == 0
    recording.d.truncate(b"file", 4)
    assert not is_metacopy(recording.upper / "file")
    assert recording.remount().read(b"file") == bytes(4)


def test_a_shorter_file_has_the_first_of_the_data(recording: Stand) -> None:
    in_lower(recording, "file")
    recording.d.chmod(b"file", 0o600)
    recording.d.truncate(b"file", 5)
    assert recording.remount().read(b"file") == b"lower"


def test_times_mode_and_capabilities_outlast_the_data(recording: Stand) -> None:
    in_lower(recording, "file")
    d = recording.d
    d.chmod(b"file", 0o4755)
    capability = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
    if os.geteuid() == 0:
        d.setxattr(b"file", b"security.capability", capability)
    d.utimens(b"file", 10**9, 2 * 10**9)
    handle = d.open(b"file", os.O_RDONLY)
    copy = d.fs.begin_copy_up(d.fs.node(handle.nodeid))
    copy.copy_data()
    d.fs.finish_copy_up(copy)
    handle.close()
    st = (recording.upper / "file").stat()
    assert (st.st_mode & 0o7777, st.st_mtime_ns) == (0o4755, 2 * 10**9)
    if os.geteuid() == 0:
        assert os.getxattr(recording.upper / "file", "security.capability") == capability


def test_attributes_are_not_changed_while_the_data_comes(recording: Stand) -> None:
    # The end of the copy puts back what they were when it began.
    in_lower(recording, "file")
    d = recording.d
    d.chmod(b"file", 0o600)
    handle = d.open(b"file", os.O_RDONLY)
    node = d.fs.node(handle.nodeid)
    copy = d.fs.begin_copy_up(node)
    with pytest.raises(CopyUpNeeded):
        d.fs.setxattr(node.nodeid, b"user.test", b"")
    d.fs.abandon_copy_up(copy)
    d.fs.setxattr(node.nodeid, b"user.test", b"")
    handle.close()


def test_a_copy_that_is_given_up_leaves_a_metacopy(recording: Stand) -> None:
    in_lower(recording, "file")
    d = recording.d
    d.utimens(b"file", 1, 2)
    handle = d.open(b"file", os.O_RDONLY)
    copy = d.fs.begin_copy_up(d.fs.node(handle.nodeid))
    copy.copy_data()
    d.fs.abandon_copy_up(copy)
    handle.close()
    assert (recording.upper / "file").read_bytes() == bytes(len(DATA))
    assert (recording.upper / "file").stat().st_mtime_ns == 2
    assert d.read(b"file") == DATA


def test_blocks_are_those_of_the_data(recording: Stand) -> None:
    in_lower(recording, "file")
    (recording.bottom / "file").write_bytes(bytes(range(256)) * 4096)
    recording.d.chmod(b"file", 0o600)
    blocks = (recording.bottom / "file").stat().st_blocks
    assert recording.d.stat(b"file").st.st_blocks == blocks > 0


def test_moved_to_another_directory_the_data_is_found(recording: Stand) -> None:
    in_lower(recording, "one/file", "two/other")
    recording.d.rename(b"one/file", b"two/file")
    assert redirect(recording.upper / "two/file") == b"/one/file"
    assert recording.remount().read(b"two/file") == b"lower one/file"


def test_moved_within_a_directory_the_name_will_do(recording: Stand) -> None:
    in_lower(recording, "one/file")
    recording.d.rename(b"one/file", b"one/moved")
    assert redirect(recording.upper / "one/moved") == b"file"
    assert recording.remount().read(b"one/moved") == b"lower one/file"


def test_in_a_moved_directory_the_data_is_found(recording: Stand) -> None:
    in_lower(recording, "one/file", "two/other")
    recording.d.chmod(b"one/file", 0o600)
    recording.d.rename(b"one", b"two/moved")
    recording.d.rename(b"two/moved/file", b"two/file")
    d = recording.remount()
    assert d.read(b"two/file") == b"lower one/file"


def test_each_name_of_a_metacopy_leads_to_the_data(recording: Stand) -> None:
    in_lower(recording, "one/file", "two/other")
    os.link(recording.bottom / "one/file", recording.bottom / "two/link")
    recording.d.chmod(b"one/file", 0o600)
    recording.d.rename(b"two/link", b"moved")
    recording.d.link(b"one/file", b"two/third")
    d = recording.remount()
    for name in (b"one/file", b"moved", b"two/third"):
        assert d.read(name) == b"lower one/file"
    d.write(b"moved", b"UPPER")
    for name in (b"one/file", b"moved", b"two/third"):
        assert d.read(name) == b"UPPER one/file"


def test_an_open_file_whose_name_has_gone_can_be_changed(recording: Stand) -> None:
    in_lower(recording, "file")
    d = recording.d
    d.chmod(b"file", 0o600)
    handle = d.open(b"file", os.O_RDONLY)
    d.unlink(b"file")
    assert handle.read() == DATA
    handle.setattr(mode=0o640)
    handle.write(b"UPPER")
    assert handle.read() == b"UPPER file"
    handle.close()


def test_a_metacopy_in_a_lower_has_its_data_further_down(recording: Stand) -> None:
    in_lower(recording, "file")
    recording.d.chmod(b"file", 0o640)
    recording.close()
    os.rename(recording.upper, recording.top.parent / "middle")
    recording.lowers.insert(0, recording.top.parent / "middle")
    recording.upper.mkdir()
    d = recording.remount()
    assert d.read(b"file") == DATA
    assert d.stat(b"file").st.st_mode & 0o777 == 0o640
    d.chmod(b"file", 0o600)
    assert recording.remount().read(b"file") == DATA
    recording.d.write(b"file", b"UPPER")
    assert recording.remount().read(b"file") == b"UPPER file"


def test_a_metacopy_without_data_is_an_error(recording: Stand) -> None:
    in_lower(recording, "file")
    recording.d.chmod(b"file", 0o600)
    recording.close()
    (recording.bottom / "file").unlink()
    with pytest.raises(OSError, match="Input/output") as caught:
        recording.d.read(b"file")
    assert caught.value.errno == errno.EIO
