"""How long nodes live, and what names them."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

import pytest

from unionfuse.union.fs import ROOT_NODEID
from unionfuse.union.node import DirNode, Node, NodeTable
from unionfuse.union.state import Options

if TYPE_CHECKING:
    from tests.unit.conftest import Stand


def tree(stand: Stand) -> None:
    (stand.bottom / "outer/inner").mkdir(parents=True)
    (stand.bottom / "outer/inner/file").write_text("data")


def test_a_node_lives_as_long_as_it_is_looked_up(plain: Stand) -> None:
    tree(plain)
    held = plain.d.hold(b"outer")
    again = plain.d.hold(b"outer")
    plain.d.fs.forget(held, 1)
    assert plain.d.fs.getattr(again).nlink
    plain.d.fs.forget(again, 1)
    with pytest.raises(OSError, match="Stale file handle"):
        plain.d.fs.getattr(again)


def test_several_lookups_are_taken_back_at_once(plain: Stand) -> None:
    tree(plain)
    for _ in range(3):
        held = plain.d.hold(b"outer")
    plain.d.fs.forget(held, 3)
    assert len(plain.d.fs.union.table) == 1


def test_a_child_holds_its_parents(plain: Stand) -> None:
    tree(plain)
    held = plain.d.hold(b"outer/inner/file")
    assert len(plain.d.fs.union.table) == 4
    plain.d.fs.forget(held, 1)
    assert len(plain.d.fs.union.table) == 1


@pytest.mark.parametrize("seed", range(10))
def test_nodes_may_be_forgotten_in_any_order(plain: Stand, seed: int) -> None:
    tree(plain)
    held = [plain.d.hold(path) for path in (b"outer", b"outer/inner", b"outer/inner/file")]
    random.Random(seed).shuffle(held)
    for nodeid in held:
        plain.d.fs.forget(nodeid, 1)
    assert len(plain.d.fs.union.table) == 1


def test_the_root_is_never_forgotten(plain: Stand) -> None:
    entry = plain.d.fs.lookup(ROOT_NODEID, b".")
    assert entry is not None
    plain.d.fs.forget(ROOT_NODEID, 1)
    assert plain.d.readdir(b"") == []


def test_a_removed_object_is_dropped_when_it_is_forgotten(union: Stand) -> None:
    tree(union)
    held = union.d.hold(b"outer/inner/file")
    union.d.unlink(b"outer/inner/file")
    assert union.d.fs.getattr(held).nlink == 0
    union.d.fs.forget(held, 1)
    assert len(union.d.fs.union.table) == 1


def test_dot_dot_is_the_parent(plain: Stand) -> None:
    tree(plain)
    outer, inner = plain.d.hold(b"outer"), plain.d.hold(b"outer/inner")
    entry = plain.d.fs.lookup(inner, b"..")
    assert entry is not None
    assert entry.node.nodeid == outer
    for nodeid, count in ((outer, 2), (inner, 1)):
        plain.d.fs.forget(nodeid, count)


@pytest.mark.parametrize("nodeid_is_ino", [False, True])
def test_two_names_of_a_lower_inode_are_one_node(plain: Stand, nodeid_is_ino: bool) -> None:
    plain.options = Options(sync=False, nodeid_is_ino=nodeid_is_ino)
    (plain.bottom / "one").write_text("")
    os.link(plain.bottom / "one", plain.bottom / "two")
    one, two = plain.d.hold(b"one"), plain.d.hold(b"two")
    assert one == two
    plain.d.fs.forget(one, 2)


def test_a_nodeid_is_the_inode_number_where_that_is_asked_for(plain: Stand) -> None:
    plain.options = Options(sync=False, nodeid_is_ino=True)
    tree(plain)
    held = plain.d.hold(b"outer/inner/file")
    assert held == (plain.bottom / "outer/inner/file").stat().st_ino
    plain.d.fs.forget(held, 1)


def test_of_two_living_nodes_of_one_number_the_second_gets_another() -> None:
    table = NodeTable(nodeid_is_ino=True)
    table.add(DirNode(7, None, b"", None, ()))
    first, second = Node(50, 0, None, b""), Node(50, 0, None, b"")
    table.add(first)
    table.add(second)
    assert (first.nodeid, first.ino) == (50, 50)
    assert second.nodeid == second.ino != 50


def test_an_object_of_number_one_is_not_taken_for_the_root() -> None:
    table = NodeTable(nodeid_is_ino=True)
    root, other = DirNode(7, None, b"", None, ()), Node(1, 0, None, b"")
    table.add(root)
    table.add(other)
    assert table.get(ROOT_NODEID) is root
    assert other.nodeid != ROOT_NODEID


def test_nodeids_are_not_used_again() -> None:
    table = NodeTable(nodeid_is_ino=False)
    table.add(DirNode(7, None, b"", None, ()))
    first = Node(50, 0, None, b"")
    table.add(first)
    table.forget(first, 0)
    second = Node(50, 0, None, b"")
    table.add(second)
    assert second.nodeid != first.nodeid


def test_few_descriptors_are_open_however_many_files_are_known(plain: Stand) -> None:
    plain.options = Options(sync=False, max_backing_fds=4)
    for number in range(50):
        (plain.bottom / f"{number}").write_text("data")
    plain.d.keeps_lookups = True
    before = len(os.listdir("/proc/self/fd"))
    for number in range(50):
        assert plain.d.read(b"%d" % number) == b"data"
    assert len(os.listdir("/proc/self/fd")) <= before + 4
