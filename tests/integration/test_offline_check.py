"""An upper is clean when it was just written, by whichever system, and shows the same mended."""

from __future__ import annotations

import os
import stat
import subprocess
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
from tests.support.writers import WRITERS, build, build_few, change_few, operations, run, shown
from unionfuse.offline.check import Check, Request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path
    from subprocess import CompletedProcess

pytestmark = [pytest.mark.fuse, pytest.mark.root, pytest.mark.once]

N_OPS = 400


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with Workers() as workers:
        yield workers


def findings(layers: Layers, *, repairs: bool = False) -> list[str]:
    lowers = [os.fsencode(lower) for lower in layers.lowers]
    request = Request(os.fsencode(layers.upper), lowers, os.fsencode(layers.work), repairs=repairs)
    outcomes = list(Check(request).outcomes())
    return [
        f"{outcome.finding.kind} {outcome.finding.path!r}: {outcome.finding.detail}"
        for outcome in outcomes
    ]


CLEAN = [name for name in WRITERS if name != "fuse-overlayfs"]


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("system", CLEAN)
def test_an_upper_that_was_just_written_is_clean(system: str, seed: int, workers: Workers) -> None:
    writer = WRITERS[system]
    with public_directory() as base:
        layers = Layers.create(base, 3)
        ops = operations(writer, seed, build(writer, layers, seed), N_OPS)
        with writer.mount(layers):
            run(layers, ops, workers)
        assert findings(layers) == []


@pytest.mark.parametrize("seed", range(1, 7))
def test_what_fuse_overlayfs_leaves_is_mended_and_the_union_is_the_same(
    seed: int, workers: Workers
) -> None:
    # It leaves whiteouts that hide nothing, and temporaries.
    writer = WRITERS["fuse-overlayfs"]
    with public_directory() as base:
        layers = Layers.create(base, 3)
        ops = operations(writer, seed, build(writer, layers, seed), N_OPS)
        with writer.mount(layers):
            run(layers, ops, workers)
        found = {line.split()[0] for line in findings(layers)}
        with union_mount(layers):
            before = shown(layers, workers)
        findings(layers, repairs=True)
        assert findings(layers) == []
        with union_mount(layers):
            assert tree.diff(before, shown(layers, workers)) == []
    assert found <= {"leftover", "whiteout-over-nothing", "whiteout-in-opaque"}


@pytest.mark.parametrize("mount", [union_mount, overlay_mount, fuse_overlayfs_mount])
def test_a_mended_upper_shows_the_same_to_the_system_that_wrote_it(
    mount: Callable[[Layers], AbstractContextManager[Path]], layers: Layers
) -> None:
    build_few(layers)
    with mount(layers):
        change_few(layers.mnt)
    os.mknod(layers.upper / "dir/nothing", stat.S_IFCHR, 0)
    os.mknod(layers.upper / "replaced/file", stat.S_IFCHR, 0)
    (layers.work / "work/#7").mkdir()
    found = ["leftover", "whiteout-over-nothing", "whiteout-in-opaque"]
    assert [line.split()[0] for line in findings(layers)] == found
    with mount(layers):
        before = set(os.listdir(layers.mnt / "dir"))
    findings(layers, repairs=True)
    assert findings(layers) == []
    with mount(layers):
        assert set(os.listdir(layers.mnt / "dir")) == before
        assert os.listdir(layers.mnt / "replaced") == ["other"]
        assert (layers.mnt / "dir/sub/file").read_text() == "changed"


@pytest.mark.parametrize("mount", [union_mount, overlay_mount, fuse_overlayfs_mount])
def test_an_upper_in_use_is_not_repaired(
    mount: Callable[[Layers], AbstractContextManager[Path]], layers: Layers
) -> None:
    with mount(layers):
        (layers.mnt / "file").touch()
        refused = check(layers, "--repair")
        told = check(layers)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.endswith("unmount it first\n")
    assert (told.returncode, told.stdout) == (0, "")
    assert "is in use by" in told.stderr
    assert check(layers, "--repair").returncode == 0


RELATIVE = "lowerdir=lower1:lower2,upperdir=./upper,workdir=work"


@pytest.mark.parametrize(
    "command",
    [["mount", "-t", "overlay", "overlay", "-o"], ["fuse-overlayfs", "-o"]],
    ids=["overlayfs", "fuse-overlayfs"],
)
def test_an_upper_in_use_by_a_relative_path_is_not_repaired(
    command: list[str], layers: Layers, tmp_path: Path
) -> None:
    other = Layers.create(tmp_path / "other", 2)
    # Directories made within one tick of the kernel's clock (4 ms here) have the same times, by
    # which alone the two can be told apart.
    os.utime(other.upper, ns=(0, 0))
    base = layers.upper.parent
    subprocess.run([*command, RELATIVE, "mnt"], cwd=base, check=True, timeout=30)
    try:
        refused = check(layers, "--repair")
        is_told_apart = check(other, "--repair").returncode == 0
    finally:
        subprocess.run(["umount", layers.mnt], check=True, timeout=30)
    assert refused.returncode == 1
    assert "is in use by" in refused.stderr
    assert is_told_apart
    assert check(layers, "--repair").returncode == 0


def check(layers: Layers, *options: str) -> CompletedProcess[str]:
    lowers = ":".join(map(str, layers.lowers))
    return unionfuse("check", *options, "--lower", lowers, "--workdir", layers.work, layers.upper)
