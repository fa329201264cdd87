"""Owner, mode and kind of a file, kept in an attribute."""

from __future__ import annotations

import os
import stat

import pytest

from unionfuse.layer.override import Override


@pytest.mark.parametrize(
    ("value", "override"),
    [
        (b"0:0:755", Override(0, 0, 0o755)),
        (b"0:0:0755", Override(0, 0, 0o755)),
        (b"5:6:104711", Override(5, 6, 0o4711)),
        (b"5:6:1770:dir", Override(5, 6, 0o1770, stat.S_IFDIR)),
        (b"1:2:0644:file", Override(1, 2, 0o644, stat.S_IFREG)),
        (b"1:2:0777:symlink", Override(1, 2, 0o777, stat.S_IFLNK)),
        (b"1:2:0600:pipe", Override(1, 2, 0o600, stat.S_IFIFO)),
        (b"1:2:0600:socket", Override(1, 2, 0o600, stat.S_IFSOCK)),
        (b"1:2:0666:char-1-3", Override(1, 2, 0o666, stat.S_IFCHR, os.makedev(1, 3))),
        (b"1:2:0660:block-8-300-x", Override(1, 2, 0o660, stat.S_IFBLK, os.makedev(8, 300))),
    ],
)
def test_a_value_is_read(value: bytes, override: Override) -> None:
    assert Override.parse(value) == override


@pytest.mark.parametrize(
    "value", [b"", b"1", b"1:2", b"1:2:9", b"a:b:c", b"1:2:755:door", b"1:2:755:char", b"1::"]
)
def test_one_without_sense_says_nothing(value: bytes) -> None:
    assert Override.parse(value) is None


@pytest.mark.parametrize(
    "value", [b"5:6:0755:dir", b"0:0:4711:file", b"1:2:0666:char-1-3", b"1:2:0600:pipe"]
)
def test_it_is_written_as_containers_storage_writes_it(value: bytes) -> None:
    override = Override.parse(value)
    assert override is not None
    assert override.packed() == value


def test_a_kind_that_is_not_said_is_the_disks() -> None:
    st = Override(5, 6, 0o4711).applied(os.stat("/"))
    assert (st.st_mode, st.st_uid, st.st_gid) == (stat.S_IFDIR | 0o4711, 5, 6)
