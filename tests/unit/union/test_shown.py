"""Owners and link counts that are shown otherwise than they are on disk."""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from typing import TYPE_CHECKING

import pytest

from tests.support.core import Driver
from unionfuse.union import acl
from unionfuse.union.fs import UnionFs
from unionfuse.union.ids import IdMap
from unionfuse.union.kinds import unite
from unionfuse.union.state import Caller, Options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from unionfuse.layer.stack import LayerStack

    Open = Callable[..., Driver]

pytestmark = pytest.mark.root

MAPPED = IdMap(ranges=((0, 100, 1000), (1000, 0, 1)))


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    """Open unions of `lower` and `upper` below tmp_path."""
    for name in ("lower", "upper"):
        (tmp_path / name).mkdir()
    with contextlib.ExitStack() as held:

        def open_union(**options: object) -> Driver:
            from unionfuse.layer.layers import Layers

            paths = [os.fsencode(tmp_path / name) for name in ("lower", "upper", "work")]
            layers = held.enter_context(contextlib.closing(Layers.open([paths[0]], *paths[1:])))
            given = Options(sync=False, **options)  # type: ignore[arg-type]  # by name
            fs = held.enter_context(contextlib.closing(unite(layers.stack, layers.workdir, given)))
            return Driver(fs)

        yield open_union


@pytest.fixture
def d(opened: Open, tmp_path: Path) -> Driver:
    """A union whose ids are mapped."""
    for owner in (0, 5, 1000, 2000):
        make(tmp_path, str(owner), owner)
    return opened(uids=MAPPED, gids=MAPPED)


def make(tmp_path: Path, name: str, owner: int) -> None:
    path = tmp_path / "lower" / name
    path.write_text("text")
    os.chown(path, owner, owner)


def on_disk(tmp_path: Path, name: str) -> tuple[int, int]:
    st = (tmp_path / "upper" / name).lstat()
    return st.st_uid, st.st_gid


def shown(d: Driver, path: bytes) -> tuple[int, int]:
    st = d.stat(path).st
    return st.st_uid, st.st_gid


class TestOut:
    @pytest.mark.parametrize(
        ("name", "owner"), [(b"0", 100), (b"5", 105), (b"1000", 0), (b"2000", 65534)]
    )
    def test_owners_are_mapped(self, d: Driver, name: bytes, owner: int) -> None:
        assert shown(d, name) == (owner, owner)

    def test_the_rest_of_the_attributes_is_the_disks(self, d: Driver, tmp_path: Path) -> None:
        st, real = d.stat(b"5").st, (tmp_path / "lower" / "5").stat()
        names = [name for name in dir(real) if name.startswith("st_")]
        for name in set(names) - {"st_uid", "st_gid"}:
            assert getattr(st, name) == getattr(real, name), name

    def test_dots_are_mapped(self, d: Driver) -> None:
        entry = d.fs.lookup(1, b".")
        assert entry is not None
        assert entry.attr.st.st_uid == 100
        d.fs.forget(1, 1)


class TestIn:
    def test_chown_is_mapped_back(self, d: Driver, tmp_path: Path) -> None:
        assert d.setattr(b"5", uid=0, gid=107).st.st_gid == 107
        assert shown(d, b"5") == (0, 107)
        assert on_disk(tmp_path, "5") == (1000, 7)

    def test_copy_up_keeps_the_owner_of_the_disk(self, d: Driver, tmp_path: Path) -> None:
        d.write(b"5", b"more")
        d.write(b"2000", b"more")
        assert on_disk(tmp_path, "5") == (5, 5)
        assert on_disk(tmp_path, "2000") == (2000, 2000)

    def test_chown_to_what_is_not_mapped_is_refused(self, d: Driver, tmp_path: Path) -> None:
        with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
            d.chown(b"5", 7, 107)
        assert shown(d, b"5") == (105, 105)
        assert not (tmp_path / "upper" / "5").exists()

    @pytest.mark.parametrize(
        "make",
        [
            lambda d: d.mkdir(b"new"),
            lambda d: d.create(b"new"),
            lambda d: d.mknod(b"new", 0o10644),
            lambda d: d.symlink(b"target", b"new"),
        ],
        ids=["mkdir", "create", "mknod", "symlink"],
    )
    def test_what_is_made_belongs_to_its_maker(
        self, d: Driver, tmp_path: Path, make: Callable[[Driver], object]
    ) -> None:
        d.caller = Caller(101, 0)
        make(d)
        assert shown(d, b"new") == (101, 0)
        assert on_disk(tmp_path, "new") == (1, 1000)

    def test_a_maker_that_is_not_mapped_is_nobody(self, d: Driver, tmp_path: Path) -> None:
        d.caller = Caller(7, 7)
        d.create(b"new")
        assert shown(d, b"new") == (65534, 65534)
        assert on_disk(tmp_path, "new") == (65534, 65534)

    def test_the_group_of_a_directory_is_given_on(self, d: Driver, tmp_path: Path) -> None:
        d.mkdir(b"dir", 0o777)
        d.chown(b"dir", 100, 105)
        d.chmod(b"dir", 0o2777)
        d.caller = Caller(101, 101)
        d.create(b"dir/new")
        assert shown(d, b"dir/new") == (101, 105)
        assert on_disk(tmp_path, "dir/new") == (1, 5)


def acl_of(user: int, group: int) -> bytes:
    entries = [(1, 6, 2**32 - 1), (2, 4, user), (4, 4, 2**32 - 1), (8, 4, group)]
    entries += [(16, 4, 2**32 - 1), (32, 0, 2**32 - 1)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


class TestAcl:
    def test_ids_in_it_are_mapped_both_ways(self, d: Driver, tmp_path: Path) -> None:
        d.setxattr(b"5", acl.ACCESS, acl_of(105, 0))
        assert d.getxattr(b"5", acl.ACCESS) == acl_of(105, 0)
        assert os.getxattr(tmp_path / "upper" / "5", acl.ACCESS) == acl_of(5, 1000)

    def test_one_that_is_not_mapped_is_refused(self, d: Driver) -> None:
        with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
            d.setxattr(b"5", acl.ACCESS, acl_of(7, 0))

    def test_other_attributes_are_left_alone(self, d: Driver) -> None:
        d.setxattr(b"5", b"user.a", acl_of(5, 5))
        assert d.getxattr(b"5", b"user.a") == acl_of(5, 5)


class TestSquash:
    def test_one_id_is_shown_of_all_and_others_are_kept(self, opened: Open, tmp_path: Path) -> None:
        make(tmp_path, "file", 5)
        d = opened(uids=IdMap(only=0), gids=IdMap(only=7))
        d.chown(b"file", 105, 105)
        d.caller = Caller(101, 101)
        d.create(b"new")
        assert shown(d, b"file") == shown(d, b"new") == (0, 7)
        assert on_disk(tmp_path, "file") == (105, 105)
        assert on_disk(tmp_path, "new") == (101, 101)

    def test_an_owner_that_can_not_be_given_is_no_error(
        self, opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make(tmp_path, "file", 0)
        d = opened(uids=IdMap(only=0), gids=IdMap(only=0))
        d.chmod(b"file", 0o640)

        def refuse(*_: object, **__: object) -> None:
            raise PermissionError(errno.EPERM, "")

        monkeypatch.setattr(os, "chown", refuse)
        d.setattr(b"file", uid=9, gid=9, mode=0o600)
        assert d.mode(b"file") == 0o600


class TestLinkCounts:
    def test_every_directory_has_one(self, opened: Open, tmp_path: Path) -> None:
        d = opened(static_nlink=True)
        d.mkdir(b"dir")
        d.mkdir(b"dir/sub")
        d.create(b"file")
        assert (tmp_path / "upper" / "dir").stat().st_nlink == 3
        assert d.stat(b"dir").nlink == 1
        d.link(b"file", b"other")
        assert d.stat(b"file").nlink == 2


def test_a_union_that_shows_all_as_it_is_is_a_plain_one(stack: LayerStack) -> None:
    assert type(unite(stack, None, Options())) is UnionFs


def test_short_inode_numbers_have_32_bits() -> None:
    from unionfuse.union.origin import InodeNumbers

    numbers = InodeNumbers([1, 2], is_short=True)
    assert numbers.number((1, 1 << 40 | 5)) == numbers.number((2, 5)) == 5
