"""Tell what has become worse from one record to another.

Requests are compared exactly. Times are compared as ratios to the kernel's overlayfs, each in its
own record, and only what is outside of a margin and of the spread counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.record import Record

MARGIN = 0.25  # of a ratio; what two runs on one quiet machine differ by is a tenth


@dataclass(frozen=True)
class Change:
    """One figure that is not what it was."""

    workload: str
    system: str
    what: str
    old: str
    new: str
    worse: bool


def compare(old: Record, new: Record, margin: float = MARGIN) -> list[Change]:
    """Return what has changed in unionfuse, of the workloads that both records have.

    What was measured once and fails now is worse.
    """
    changes = []
    for system, facts in new.systems.items():
        if not facts.ours or system not in old.systems:
            continue
        for workload in new.workloads:
            if workload in old.workloads:
                changes += _requests(old, new, workload, system)
                changes += _times(old, new, workload, system, margin)
    return sorted(changes, key=lambda change: not change.worse)


def _requests(old: Record, new: Record, workload: str, system: str) -> list[Change]:
    if system in new.workloads[workload].unsteady:
        return []
    before = old.results.counts.get((workload, system))
    after = new.results.counts.get((workload, system))
    if before is None or after is None or before.waited_for == after.waited_for:
        return []
    worse = after.waited_for > before.waited_for
    return [
        Change(
            workload, system, "requests", f"{before.waited_for:,}", f"{after.waited_for:,}", worse
        )
    ]


def _times(old: Record, new: Record, workload: str, system: str, margin: float) -> list[Change]:
    before = old.results.ratio(workload, system, old.reference)
    after = new.results.ratio(workload, system, new.reference)
    if before is None:
        return []
    if after is None:
        failed = (workload, system) in new.results.samples
        return [Change(workload, system, "time", f"{before.median:.2f}", "failed", worse=True)] * (
            failed
        )
    slower = after.median > before.median * (1 + margin) and after.least > before.median
    faster = before.median > after.median * (1 + margin) and before.least > after.median
    if not slower and not faster:
        return []
    shown = f"{before.median:.2f}", f"{after.median:.2f}"
    return [Change(workload, system, f"time / time of {new.reference}", *shown, worse=slower)]
