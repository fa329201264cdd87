"""The union and the kernel's overlayfs do the same, operation by operation.

Both get equal random layers and the same random operations of three users; see tests/fuzz.py for
what is compared, and for running more of them. A difference that a seed shows here is reproduced by
the command in its message.
"""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests import fuzz
from tests.support.mounts import REPOSITORY, overlay_mount
from tests.support.ops import Workers

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.fuse, pytest.mark.root, pytest.mark.timeout(240), pytest.mark.data]

N_OPS = 500


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with Workers() as workers:
        yield workers


@pytest.mark.parametrize("seed", range(1, 7))
def test_random_operations_have_the_outcomes_that_overlayfs_gives(
    seed: int, workers: Workers
) -> None:
    plan = fuzz.Plan.from_seed(seed, N_OPS)

    difference = fuzz.compare(plan, fuzz.UNIONFUSE, fuzz.OVERLAYFS, workers)

    assert difference is None, difference.describe(plan)


@pytest.mark.parametrize("seed", [101, 102])
def test_outcomes_stay_the_same_while_the_kernel_forgets_its_nodes(
    seed: int, workers: Workers
) -> None:
    plan = fuzz.Plan.from_seed(seed, N_OPS, drop_caches_every=10)

    difference = fuzz.compare(plan, fuzz.UNIONFUSE, fuzz.OVERLAYFS, workers)

    assert difference is None, difference.describe(plan)


def test_a_tree_that_is_never_read_in_between_ends_the_same(workers: Workers) -> None:
    # Reading the whole tree warms every cache; here nothing is looked at but by the operations.
    plan = fuzz.Plan.from_seed(201, 2 * N_OPS, check_every=0)

    difference = fuzz.compare(plan, fuzz.UNIONFUSE, fuzz.OVERLAYFS, workers)

    assert difference is None, difference.describe(plan)


@pytest.mark.once
def test_a_union_that_breaks_hard_links_is_noticed(workers: Workers) -> None:
    # The oracle against itself, once without its index: what passes above passes for a reason.
    plan = fuzz.Plan.from_seed(1, N_OPS)
    options = "index=off,redirect_dir=on,metacopy=on,xino=off"
    breaking = fuzz.System(partial(overlay_mount, options=options), entry_inos=False)

    difference = fuzz.compare(plan, breaking, fuzz.OVERLAYFS, workers)

    assert difference is not None


@pytest.mark.once
@pytest.mark.userns
@pytest.mark.parametrize("seed", [301, 302])
def test_in_a_user_namespace_they_are_those_of_overlayfs_with_userxattr(seed: int) -> None:
    command = [sys.executable, "-m", "tests.fuzz", "--rootless", "--seed", str(seed)]
    done = subprocess.run(
        [*command, "--ops", str(N_OPS), "--shrink-seconds", "0"],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
