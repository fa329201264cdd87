"""What is done on a mount while it is measured: data, one entry a workload.

A new workload is an entry of `WORKLOADS` in one of the modules here; nothing else knows its name.
"""

from __future__ import annotations

from bench.workloads import changing, data, programs, reading, writing
from bench.workloads.base import Context, Workload

__all__ = ["GROUPS", "WORKLOADS", "Context", "Workload"]

GROUPS: dict[str, tuple[Workload, ...]] = {
    "reading": reading.WORKLOADS,
    "writing": writing.WORKLOADS,
    "changing": changing.WORKLOADS,
    "programs": programs.WORKLOADS,
    "data": data.WORKLOADS,
}
WORKLOADS: tuple[Workload, ...] = tuple(workload for group in GROUPS.values() for workload in group)
