"""What a diff says of an upper is what a mount shows, whoever wrote it.

Random operations are run on a union of each system. The names that its mount shows before and after
tell what was added and deleted.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.support.mounts import Layers, public_directory, union_mount
from tests.support.ops import Workers
from tests.support.writers import WRITERS, build, operations, run, shown
from unionfuse.offline.diff import UpperDiff
from unionfuse.offline.layers import opened

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.fuse, pytest.mark.root, pytest.mark.once]

N_OPS = 400
# What comes along with a renamed directory of a lower is not listed.
SYSTEMS = [name for name, writer in WRITERS.items() if not writer.renames_directories]


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with Workers() as workers:
        yield workers


def changes(layers: Layers, *, with_lowers: bool) -> dict[str, set[bytes]]:
    lowers = [os.fsencode(lower) for lower in layers.lowers] if with_lowers else []
    found: dict[str, set[bytes]] = {"A": set(), "C": set(), "D": set()}
    with opened(os.fsencode(layers.upper), lowers) as stack:
        for change in UpperDiff(stack).changes():
            found[change.kind].add(change.path)
    return found


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("system", SYSTEMS)
def test_names_that_came_and_went_are_told(system: str, seed: int, workers: Workers) -> None:
    writer = WRITERS[system]
    with public_directory() as base:
        layers = Layers.create(base, 3)
        ops = operations(writer, seed, build(writer, layers, seed), N_OPS)
        with writer.mount(layers):
            before = set(shown(layers, workers))
            run(layers, ops, workers)
        # fuse-overlayfs lists some names that it does not find itself, after a remount too.
        with (union_mount if writer.is_plain else writer.mount)(layers):
            after = set(shown(layers, workers))

        exact = changes(layers, with_lowers=True)
        guessed = changes(layers, with_lowers=False)

    assert exact["A"] == after - before
    gone = before - after
    assert exact["D"] <= gone
    kept = exact["D"] | exact["C"]  # what is in a deleted or replaced directory is not told
    assert all(name in exact["D"] or os.path.dirname(name) in gone | kept for name in gone)
    assert exact["C"] <= before & after
    assert guessed["A"] | guessed["C"] == exact["A"] | exact["C"]
