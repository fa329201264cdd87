"""A converted upper shows the same, mounted by the system that reads its form."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.support import tree
from tests.support.commands import unionfuse
from tests.support.mounts import (
    Layers,
    fuse_overlayfs_mount,
    overlay_mount,
    public_directory,
    union_mount,
)
from tests.support.ops import Workers
from tests.support.writers import (
    WRITERS,
    Writer,
    build,
    build_few,
    change_few,
    operations,
    run,
    shown,
)
from unionfuse.offline.check import Check, Request
from unionfuse.offline.convert import convert
from unionfuse.offline.forms import FORMS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

pytestmark = [pytest.mark.fuse, pytest.mark.root, pytest.mark.once]

N_OPS = 400
# Not of names that are too long for the whiteouts of others.
OVERLAYFS = Writer(WRITERS["overlayfs-plain"].mount, is_plain=True)
USERXATTR = Writer(WRITERS["overlayfs-userxattr"].mount, is_plain=True, reads_user=True)
FUSE_OVERLAYFS = WRITERS["fuse-overlayfs"]


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with Workers() as workers:
        yield workers


def record(
    mount: Callable[[Layers], AbstractContextManager[Path]], layers: Layers, workers: Workers
) -> dict[bytes, tree.Record]:
    # How a user's attribute in trusted.overlay.* is kept depends on the mount, not on the form.
    with mount(layers):
        return shown(layers, workers, directory_times=True, private_xattrs=False)


def write(writer: Writer, layers: Layers, seed: int, workers: Workers) -> None:
    ops = operations(writer, seed, build(writer, layers, seed), N_OPS)
    with writer.mount(layers):
        run(layers, ops, workers)


def to(form: str, *directories: Path, work: Path) -> None:
    for directory in directories:
        assert convert(os.fsencode(directory), FORMS[form], os.fsencode(work)) == []


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(
    ("writer", "forms"),
    [
        (OVERLAYFS, ["aufs", "overlayfs", "userxattr", "aufs", "userxattr", "overlayfs"]),
        (USERXATTR, ["overlayfs", "aufs"]),
        (FUSE_OVERLAYFS, ["overlayfs", "userxattr", "aufs"]),
        (WRITERS["unionfuse"], ["overlayfs"]),
        (WRITERS["overlayfs"], ["overlayfs"]),
    ],
    ids=["overlayfs-plain", "userxattr", "fuse-overlayfs", "unionfuse", "overlayfs"],
)
def test_unionfuse_shows_the_same_in_every_form(
    writer: Writer, forms: list[str], seed: int, workers: Workers
) -> None:
    with public_directory() as base:
        layers = Layers.create(base, 3)
        write(writer, layers, seed, workers)
        before = record(union_mount, layers, workers)
        for form in forms:
            to(form, layers.upper, work=layers.work)
            assert tree.diff(before, record(union_mount, layers, workers)) == [], form


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_overlayfs_shows_the_same_with_attributes_of_users(seed: int, workers: Workers) -> None:
    with public_directory() as base:
        layers = Layers.create(base, 3)
        write(OVERLAYFS, layers, seed, workers)
        before = record(OVERLAYFS.mount, layers, workers)
        to("userxattr", layers.upper, *layers.lowers, work=layers.work)
        assert tree.diff(before, record(USERXATTR.mount, layers, workers)) == []
        to("overlayfs", layers.upper, *layers.lowers, work=layers.work)
        assert tree.diff(before, record(OVERLAYFS.mount, layers, workers)) == []


def test_overlayfs_keeps_hard_links_with_attributes_of_users(
    layers: Layers, workers: Workers
) -> None:
    (layers.lowers[1] / "one").write_text("one file")
    os.link(layers.lowers[1] / "one", layers.lowers[1] / "two")
    with overlay_mount(layers, "index=on,redirect_dir=off,metacopy=off") as mnt:
        (mnt / "one").write_text("changed")
        before = shown(layers, workers)
    to("userxattr", layers.upper, work=layers.work)
    after = record(partial(overlay_mount, options="userxattr,index=on"), layers, workers)
    assert after[b"two"].same_file_as == b"one"
    assert (after[b"two"].content, after[b"two"].nlink) == (before[b"one"].content, 2)


def test_fuse_overlayfs_shows_the_same_with_files(layers: Layers, workers: Workers) -> None:
    build_few(layers)
    with OVERLAYFS.mount(layers):
        change_few(layers.mnt)
    before = record(fuse_overlayfs_mount, layers, workers)
    to("aufs", layers.upper, work=layers.work)
    assert tree.diff(before, record(fuse_overlayfs_mount, layers, workers)) == []
    assert (layers.upper / ".wh.gone").exists()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_overlayfs_shows_what_fuse_overlayfs_wrote(seed: int, workers: Workers) -> None:
    with public_directory() as base:
        layers = Layers.create(base, 3)
        write(FUSE_OVERLAYFS, layers, seed, workers)
        mend(layers)  # overlayfs lists whiteouts that hide nothing
        before = record(union_mount, layers, workers)  # it finds all names that it lists itself
        to("overlayfs", layers.upper, work=layers.work)
        after = record(OVERLAYFS.mount, layers, workers)
    assert {name: (one.type, one.content) for name, one in before.items()} == {
        name: (one.type, one.content) for name, one in after.items()
    }


def mend(layers: Layers) -> None:
    lowers = [os.fsencode(lower) for lower in layers.lowers]
    upper, work = os.fsencode(layers.upper), os.fsencode(layers.work)
    outcomes = list(Check(Request(upper, lowers, work, repairs=True)).outcomes())
    assert all(outcome.is_mended for outcome in outcomes)


@pytest.mark.parametrize("mount", [union_mount, overlay_mount, fuse_overlayfs_mount])
def test_an_upper_in_use_is_left_alone(
    mount: Callable[[Layers], AbstractContextManager[Path]], layers: Layers
) -> None:
    with mount(layers):
        (layers.upper / ".wh.gone").touch()
        result = unionfuse("convert", "--to", "overlayfs", layers.upper)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.endswith("unmount it first\n")
    assert (layers.upper / ".wh.gone").exists()
