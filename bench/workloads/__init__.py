"""What is done on a mount while it is measured: data, one entry a workload.

A new workload is an entry of `WORKLOADS` in one of the modules here; nothing else knows its name.
"""

from __future__ import annotations

from bench.workloads import changing, data, programs, reading, writing
from bench.workloads.base import Context, Workload

__all__ = ["WORKLOADS", "Context", "Workload"]

WORKLOADS: tuple[Workload, ...] = (
    *reading.WORKLOADS,
    *writing.WORKLOADS,
    *changing.WORKLOADS,
    *programs.WORKLOADS,
    *data.WORKLOADS,
)
