"""A node that is given a second nodeid: both mean it, until the kernel forgets the old one."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from tests.support.core import OURSELVES
from unionfuse.union.fs import ROOT_NODEID

if TYPE_CHECKING:
    from tests.unit.conftest import Stand


def test_a_lookup_finds_the_new_nodeid(union: Stand) -> None:
    (union.bottom / "file").write_text("")
    fs = union.d.fs
    old = fs.lookup(ROOT_NODEID, b"file").node.nodeid
    fs.renumber(old)
    new = fs.lookup(ROOT_NODEID, b"file").node.nodeid
    assert new != old
    assert fs.is_old_nodeid(old)
    assert not fs.is_old_nodeid(new)
    assert fs.getattr(new).ino == fs.getattr(old).ino
    fs.forget(old, 1)
    fs.forget(new, 1)


def test_the_old_nodeid_ends_with_its_own_lookups(union: Stand) -> None:
    (union.bottom / "file").write_text("")
    fs = union.d.fs
    old = fs.lookup(ROOT_NODEID, b"file").node.nodeid
    fs.lookup(ROOT_NODEID, b"file")
    fs.lookup(ROOT_NODEID, b"file")
    fs.renumber(old)
    new = fs.lookup(ROOT_NODEID, b"file").node.nodeid
    fs.forget(old, 3)
    with pytest.raises(OSError, match=os.strerror(errno.ESTALE)):
        fs.getattr(old)
    assert fs.getattr(new).nlink == 1
    fs.forget(new, 1)
    assert len(fs.union.table) == 1


def test_the_node_lives_while_the_old_nodeid_is_known(union: Stand) -> None:
    (union.bottom / "file").write_text("")
    fs = union.d.fs
    old = fs.lookup(ROOT_NODEID, b"file").node.nodeid
    fs.renumber(old)
    new = fs.lookup(ROOT_NODEID, b"file").node.nodeid
    fs.forget(new, 1)
    assert fs.getattr(old).nlink == 1
    assert fs.lookup(ROOT_NODEID, b"file").node.nodeid == new
    fs.forget(new, 1)
    fs.forget(old, 1)
    assert len(fs.union.table) == 1


def test_a_file_without_a_name_gets_one_by_a_link(union: Stand) -> None:
    fs = union.d.fs
    entry = fs.tmpfile(ROOT_NODEID, 0o644, OURSELVES)
    nodeid = entry.node.nodeid
    os.pwrite(fs.data_fd(nodeid, write=True), b"data", 0)
    assert fs.getattr(nodeid).nlink == 0
    assert os.listdir(union.upper) == []
    fs.link(nodeid, ROOT_NODEID, b"named")
    assert (union.upper / "named").read_bytes() == b"data"
    assert fs.getattr(nodeid).nlink == 1
    fs.release(nodeid)
    fs.forget(nodeid, 2)
    assert union.d.read(b"named") == b"data"


def test_a_file_whose_last_name_went_gets_none_by_a_link(union: Stand) -> None:
    fs = union.d.fs
    union.d.create(b"file")
    nodeid = fs.lookup(ROOT_NODEID, b"file").node.nodeid
    fs.unlink(ROOT_NODEID, b"file")
    with pytest.raises(FileNotFoundError):
        fs.link(nodeid, ROOT_NODEID, b"again")
    fs.forget(nodeid, 1)
