"""No change makes the kernel ask more than before: an exact check, and none of any time."""

from __future__ import annotations

import os

import pytest

from bench import baseline
from bench.requests import why_not
from bench.tree import obtain

pytestmark = [pytest.mark.fuse, pytest.mark.root, pytest.mark.once, pytest.mark.slow]


# it takes 40 seconds; each run in which others drop the kernel's caches is made again
@pytest.mark.timeout(240)
def test_no_workload_needs_more_requests_than_the_baseline(tmp_path):
    if os.environ.get("UNIONFUSE_TEST_DROP_CACHES"):
        pytest.skip("what the kernel forgets it asks for again: its caches are being dropped")
    if reason := why_not():
        pytest.skip(reason)
    if baseline.kernel() not in baseline.kernels():
        pytest.skip(f"there are no counts of Linux {baseline.kernel()}: bench baseline --write")
    before = baseline.kept()
    counts = baseline.count_all(obtain(tmp_path, made=True), tmp_path, before)
    assert baseline.differences(before, counts).more == []
