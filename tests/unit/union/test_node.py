"""How long nodes live, and what names them."""

from __future__ import annotations

import os
import random
import sys
from typing import TYPE_CHECKING

import pytest

from unionfuse.union.fs import ROOT_NODEID
from unionfuse.union.node import DirNode, Node, NodeTable, Rare
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


def test_a_file_that_is_only_known_has_nothing_rare(plain: Stand) -> None:
    plain.options = Options(sync=False, max_backing_fds=1)
    for name in ("one", "two"):
        (plain.bottom / name).write_text("data")
    one, two = plain.d.hold(b"one"), plain.d.hold(b"two")
    fs = plain.d.fs
    assert fs.node(one).rare is None
    fs.data_fd(one)
    assert fs.node(one).rare is not None
    fs.data_fd(two)  # takes the descriptor of the other away
    assert fs.node(one).rare is None
    for nodeid in (one, two):
        fs.forget(nodeid, 1)


def test_what_is_not_rare_is_as_in_a_rare_that_nobody_changed() -> None:
    node, rare = Node(50, 0, None, b""), Rare()
    for name in Rare.__slots__:
        assert getattr(node, name) == getattr(rare, name), name
        setattr(node, name, getattr(rare, name))
    assert node.rare is None
    assert not rare.is_needed()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("fd", 5),
        ("is_orphan", True),
        ("opens", 1),
        ("others", {(None, b"name")}),
        ("nlink_delta", -1),
        ("is_counted", False),
        ("keys", ((1, 2),)),
    ],
)
def test_whatever_is_not_as_at_first_is_needed(name: str, value: object) -> None:
    rare = Rare()
    setattr(rare, name, value)
    assert rare.is_needed()


def test_the_table_gives_room_back() -> None:
    table = NodeTable(nodeid_is_ino=False)
    root = DirNode(7, None, b"", None, ())
    table.add(root)
    nodes = [Node(number, 0, None, b"") for number in range(50, 20_050)]
    for node in nodes:
        table.add(node)
        node.add_place(root, b"%d" % node.ino)
    most, most_of_root = sys.getsizeof(table.nodes), sys.getsizeof(root.children)
    for node in nodes:
        table.forget(node, 0)
    assert len(table) == 1
    assert sys.getsizeof(table.nodes) < most / 4
    assert sys.getsizeof(root.children) < most_of_root / 100


def test_a_file_that_gets_a_second_name_is_found_by_both(union: Stand) -> None:
    union.d.create(b"one")
    one = union.d.hold(b"one")
    union.d.link(b"one", b"two")
    assert union.d.hold(b"two") == one
    union.d.unlink(b"one")
    assert union.d.hold(b"two") == one
    union.d.fs.forget(one, 3)
    assert len(union.d.fs.union.table) == 1


def test_names_of_a_link_that_were_not_looked_up_lead_to_its_node(union: Stand) -> None:
    union.d.create(b"one")
    union.d.link(b"one", b"two")
    union.remount()
    one = union.d.hold(b"one")
    union.d.unlink(b"one")
    assert union.d.hold(b"two") == one
    assert union.d.fs.getattr(one).nlink == 1
    union.d.fs.forget(one, 2)
