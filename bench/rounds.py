"""Measure times that can be compared: systems side by side, in rounds, against one reference."""

from __future__ import annotations

import contextlib
import math
import os
import platform
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import BenchError
from bench.measure import Sample, once
from bench.workloads.reading import EVERYTHING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.systems import System
    from bench.tree import Tree
    from bench.workloads import Workload


@dataclass(frozen=True)
class Ratio:
    """How much longer one system takes than another: median over the rounds, and the extremes."""

    median: float
    least: float
    most: float


class Results:
    """The samples of every round, by workload and system."""

    def __init__(self) -> None:
        self.samples: dict[tuple[str, str], list[Sample | None]] = {}
        self.failures: list[str] = []

    def add(self, workload: str, system: str, sample: Sample | None) -> None:
        """Note one round; None where it failed."""
        self.samples.setdefault((workload, system), []).append(sample)

    def good(self, workload: str, system: str) -> list[Sample]:
        """Return the samples that there are."""
        return [s for s in self.samples.get((workload, system), []) if s is not None]

    def seconds(self, workload: str, system: str) -> float | None:
        """Return the median time, or None."""
        seconds = [sample.seconds for sample in self.good(workload, system)]
        return statistics.median(seconds) if seconds else None

    def cpu_seconds(self, workload: str, system: str) -> float | None:
        """Return the median CPU time of the daemon, or None."""
        seconds = [sample.cpu_seconds for sample in self.good(workload, system)]
        return statistics.median(seconds) if seconds else None

    def pss_kib(self, workload: str, system: str) -> int | None:
        """Return the most memory that the daemon had after a run, or None."""
        return max((sample.pss_kib for sample in self.good(workload, system)), default=None)

    def ratio(self, workload: str, system: str, reference: str) -> Ratio | None:
        """Return the ratio of the times in the same round, or None."""
        pairs = zip(
            self.samples.get((workload, system), []),
            self.samples.get((workload, reference), []),
            strict=False,
        )
        ratios = [one.seconds / other.seconds for one, other in pairs if one and other]
        return Ratio(statistics.median(ratios), min(ratios), max(ratios)) if ratios else None

    def mean_ratio(
        self, workloads: Sequence[str], system: str, reference: str
    ) -> tuple[float, int] | None:
        """Return the geometric mean of the ratios, and of how many workloads it is."""
        found = [self.ratio(workload, system, reference) for workload in workloads]
        logs = [math.log(ratio.median) for ratio in found if ratio]
        return (math.exp(statistics.fmean(logs)), len(logs)) if logs else None


def run_rounds(
    systems: Sequence[System],
    workloads: Sequence[Workload],
    tree: Tree,
    directory: Path,
    rounds: int,
    progress: Callable[[str], None],
) -> Results:
    """Run every workload on every system `rounds` times, the systems in turn.

    Before that each system must show the tree as it is, to the last byte; one that does not is
    not measured.
    """
    results = Results()
    # Interrupted, it returns what it has.
    with contextlib.suppress(KeyboardInterrupt):
        right = []
        for system in systems:
            progress(f"is the tree right on {system.name}?")
            if _try(results, system, EVERYTHING, tree, directory):
                right.append(system)
        for number in range(rounds):
            # What comes first in a round pays for what comes last in the one before.
            turn = right if number % 2 == 0 else right[::-1]
            for workload in workloads:
                for system in turn:
                    progress(f"round {number + 1} of {rounds}: {workload.name} on {system.name}")
                    sample = _try(results, system, workload, tree, directory)
                    results.add(workload.name, system.name, sample)
    return results


def as_json(results: Results, systems: Sequence[System], rounds: int) -> dict[str, object]:
    """Return everything that was measured, and on what."""
    return {
        "format": 1,
        "machine": machine_facts(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "rounds": rounds,
        "systems": {system.name: system.summary for system in systems},
        "samples": [
            {
                "workload": workload,
                "system": system,
                "rounds": [None if sample is None else asdict(sample) for sample in samples],
            }
            for (workload, system), samples in results.samples.items()
        ],
        "failures": results.failures,
    }


def machine_facts() -> dict[str, object]:
    """Return what a reader must know of the machine to make something of the figures."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    models = {
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    }
    return {
        "kernel": platform.release(),
        "processor": ", ".join(sorted(models)) or platform.machine(),
        "processors": len(os.sched_getaffinity(0)),
        "memory_mib": memory >> 20,
        "python": sys.version.split()[0],
    }


def _try(
    results: Results, system: System, workload: Workload, tree: Tree, directory: Path
) -> Sample | None:
    try:
        return once(system, workload, tree, directory)
    except BenchError as error:
        results.failures.append(str(error))
        return None
