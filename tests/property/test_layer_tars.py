"""Any layers, any tar: what is packed and applied is the same, and nothing leaves its directory."""

from __future__ import annotations

import io
import os
import shutil
import stat
from itertools import count
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.property.layers import fingerprint, layers, unite, write
from tests.support.tars import apply
from unionfuse.image.errors import ImageError
from unionfuse.image.layers.index import IndexWriter
from unionfuse.image.layers.limits import Limits
from unionfuse.image.layers.member import Member
from unionfuse.image.layers.pack import PackOptions, pack_merged, pack_tree, pack_upper
from unionfuse.image.layers.writer import TarWriter
from unionfuse.offline.layers import opened

if TYPE_CHECKING:
    from pathlib import Path

    from tests.property.layers import Dir
    from tests.support.model import Inode

pytestmark = pytest.mark.root  # whiteouts, owners, trusted.*

# `scratch` is one for all examples of a test: each has directories of its own in it.
shared = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])

_numbers = count()
_NANO = 10**9


def written(scratch: Path, stack: list[Dir]) -> list[Path]:
    paths = []
    for layer in stack:
        path = scratch / f"layer-{next(_numbers)}"
        path.mkdir()
        write(path, layer)
        paths.append(path)
    return paths


def merged(paths: list[Path]) -> bytes:
    out = io.BytesIO()
    with opened(os.fsencode(paths[0]), [os.fsencode(path) for path in paths[1:]]) as stack:
        pack_merged(stack, out.write)
    return out.getvalue()


def committed(upper: Path, lowers: list[Path]) -> bytes:
    out = io.BytesIO()
    with opened(os.fsencode(upper), [os.fsencode(path) for path in lowers]) as stack:
        pack_upper(stack, out.write)
    return out.getvalue()


def tree_of(data: bytes, scratch: Path) -> Path:
    path = scratch / f"tree-{next(_numbers)}"
    apply(data, path)
    return path


def assert_same(path: bytes, node: Inode, links: dict[tuple[int, int], Inode]) -> None:
    """Compare what is at `path` and below with a model; the root's attributes are no part of it."""
    for name in os.listdir(path):
        below = os.path.join(path, name)
        status, expected = os.lstat(below), node.children[name]
        assert status.st_mode == expected.fmt | expected.mode, below
        assert (status.st_uid, status.st_gid) == (expected.uid, expected.gid), below
        assert status.st_mtime_ns == expected.mtime_ns // _NANO * _NANO, below
        if stat.S_ISDIR(status.st_mode):
            assert_same(below, expected, links)
            continue
        assert links.setdefault((status.st_dev, status.st_ino), expected) is expected, below
        if stat.S_ISLNK(status.st_mode):
            assert os.readlink(below) == expected.target, below
        elif stat.S_ISREG(status.st_mode):
            with open(below, "rb") as file:
                assert file.read() == expected.data, below
        found = {
            os.fsencode(key): os.getxattr(below, key, follow_symlinks=False)
            for key in os.listxattr(below, follow_symlinks=False)
        }
        assert found == expected.xattrs, below
    assert set(os.listdir(path)) == set(node.children), path


@shared
@given(stack=st.lists(layers, min_size=1, max_size=3))
def test_a_packed_stack_is_the_tree_that_the_stack_shows(scratch: Path, stack: list[Dir]) -> None:
    found = tree_of(merged(written(scratch, stack)), scratch)
    assert_same(os.fsencode(found), unite(stack), {})


@shared
@given(upper=layers, lowers=st.lists(layers, min_size=1, max_size=2))
def test_a_committed_upper_over_its_lowers_shows_what_the_upper_did(
    scratch: Path, upper: Dir, lowers: list[Dir]
) -> None:
    top, *below = written(scratch, [upper, *lowers])
    before = fingerprint([top, *below])
    data = committed(top, below)
    assert data == committed(top, below)
    assert fingerprint([top, *below]) == before
    applied = tree_of(data, scratch)
    assert merged([applied, *below]) == merged([top, *below])


@shared
@given(layer=layers)
def test_a_tree_that_was_packed_and_applied_packs_to_the_same_bytes(
    scratch: Path, layer: Dir
) -> None:
    first = tree_of(merged(written(scratch, [layer])), scratch)
    outs = []
    for path in (first, None):
        path = path or tree_of(outs[0], scratch)
        out = io.BytesIO()
        fd = os.open(path, os.O_RDONLY)
        try:
            pack_tree(fd, out.write, PackOptions(with_root=True))
        finally:
            os.close(fd)
        outs.append(out.getvalue())
    assert outs[0] == outs[1]


# Hostile tars

_parts = st.sampled_from(
    [b"a", b"b", b"c", b"..", b".", b"", b".wh.a", b".wh.b", b".wh..wh..opq", b".wh..", b".wh.",
     b".wh..wh.plnk", b"\xff", b"n" * 255, b"n" * 256]
)  # fmt: skip
_paths = st.lists(_parts, min_size=1, max_size=4).map(b"/".join)
_members = st.builds(
    Member,
    name=_paths,
    fmt=st.sampled_from(
        [0, 0, stat.S_IFREG, stat.S_IFREG, stat.S_IFDIR, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFLNK,
         stat.S_IFCHR, stat.S_IFIFO]
    ),
    mode=st.sampled_from([0o644, 0o755, 0o6777, 0]),
    uid=st.sampled_from([0, 5, 3_000_000_000, 0xFFFFFFFE, 0xFFFFFFFF]),
    mtime_ns=st.sampled_from([0, -1, 1 << 62, -(1 << 65)]),
    size=st.sampled_from([0, 0, 3, 512]),
    target=st.one_of(_paths, st.sampled_from([b"/", b"..", b"../..", b"/etc", b"a\0b"])),
    rdev=st.sampled_from([(0, 0), (1, 3), (4000, 1)]),
    xattrs=st.dictionaries(
        st.sampled_from(
            [b"user.k", b"trusted.overlay.opaque", b"security.capability", b"nonsense", b"",
             b"system.posix_acl_access", b"user.containers.override_stat"]
        ),
        st.binary(max_size=30),
        max_size=2,
    ),
)  # fmt: skip


def packed(members: list[Member]) -> bytes:
    out = io.BytesIO()
    writer = TarWriter(out.write)
    for member in members:
        writer.add(member)
        writer.write(b"x" * (member.size if stat.S_ISREG(member.fmt) else 0))
    writer.close()
    return out.getvalue()


def with_checksum(data: bytearray, at: int) -> None:
    """Make the header at `at` a right one again."""
    block = data[at : at + 512]
    if len(block) == 512:
        block[148:156] = b" " * 8
        data[at + 148 : at + 156] = b"%06o\0 " % sum(block)


def tried(scratch: Path, data: bytes) -> None:
    """Apply `data`; look that nothing but its directory was touched, whatever came of it."""
    base = scratch / f"hostile-{next(_numbers)}"
    (base / "in").mkdir(parents=True)
    (base / "a").write_bytes(b"outside")
    (base / "in/b").mkdir()
    before = {
        path: os.lstat(path).st_ctime_ns for path in (base / "a", base / "in/b", base, scratch)
    }
    inside = base / "in/l"
    inside.mkdir()
    before[base / "in"] = os.lstat(base / "in").st_ctime_ns
    try:
        apply(data, inside, limits=Limits(entries=50, duplicates=20), index=IndexWriter())
    except (ImageError, OSError) as err:
        assert "\n" not in str(err)  # noqa: PT017 - most tars here are errors, some are none
    assert {path: os.lstat(path).st_ctime_ns for path in before} == before
    shutil.rmtree(inside)


@shared
@given(members=st.lists(_members, max_size=8))
def test_no_tar_writes_outside_of_its_directory(scratch: Path, members: list[Member]) -> None:
    tried(scratch, packed(members))


@shared
@given(
    members=st.lists(_members, min_size=1, max_size=4),
    changes=st.lists(st.tuples(st.integers(0, 6000), st.integers(0, 255)), max_size=8),
    cut=st.integers(0, 3000),
)
def test_no_damage_to_a_tar_is_more_than_an_error(
    scratch: Path, members: list[Member], changes: list[tuple[int, int]], cut: int
) -> None:
    data = bytearray(packed(members))
    for at, value in changes:
        at %= len(data)
        data[at] = value
        with_checksum(data, at - at % 512)
    tried(scratch, bytes(data[: len(data) - cut] if cut > 1500 else data))


@shared
@given(
    data=st.binary(max_size=2000), head=st.sampled_from([b"", b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd"])
)
def test_no_bytes_are_more_than_an_error(scratch: Path, head: bytes, data: bytes) -> None:
    tried(scratch, head + data)
