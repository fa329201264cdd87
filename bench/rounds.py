"""Measure times that can be compared: systems side by side, in rounds, against one reference."""

from __future__ import annotations

import contextlib
import math
import statistics
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.errors import BenchError
from bench.measure import How, Sample, once
from bench.workloads.reading import EVERYTHING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from bench.requests import Counts
    from bench.systems import System
    from bench.tree import Tree
    from bench.workloads import Workload


MAX_FAILED = 2  # a mount that hangs takes minutes each time
MAX_SAID = 300  # characters of a failure


@dataclass(frozen=True)
class Ratio:
    """How much longer one system takes than another: median over the rounds, and the extremes."""

    median: float
    least: float
    most: float


@dataclass(frozen=True)
class Failure:
    """What could not be measured, and why."""

    system: str
    what: str


class Results:
    """The samples of every round, by workload and system, and the requests that each needs.

    These are the least of the rounds: what the kernel forgets for want of memory it asks for again.
    """

    def __init__(self) -> None:
        self.samples: dict[tuple[str, str], list[Sample | None]] = {}
        self.counts: dict[tuple[str, str], Counts] = {}
        self.failures: list[Failure] = []

    def add(self, workload: str, system: str, sample: Sample | None) -> None:
        """Note one round; None where it failed."""
        self.samples.setdefault((workload, system), []).append(sample)
        if sample is not None:
            self.note_counts(workload, system, sample)

    def note_counts(self, workload: str, system: str, sample: Sample) -> None:
        """Note the requests of one run, if they were counted."""
        if sample.counts is not None:
            known = self.counts.get((workload, system), sample.counts)
            least = min(known, sample.counts, key=lambda counts: counts.waited_for)
            self.counts[workload, system] = least

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


def fits(workload: Workload, system: System) -> bool:
    """Return whether `system` has what `workload` needs.

    One that copies nothing up would write into the lowers, and spoil them for everybody.
    """
    return workload.reads_only or not system.reads_only


def run_rounds(  # noqa: PLR0913 - two lists, two places, how, and whom to tell
    systems: Sequence[System],
    workloads: Sequence[Workload],
    tree: Tree,
    directory: Path,
    rounds: Mapping[str, int],
    how: How,
    progress: Callable[[str], None],
) -> Results:
    """Run every workload on every system, the systems in turn.

    Before that each system must show the tree as it is, to the last byte, which brings it into the
    page cache; one that does not is not measured. Then comes a round to warm up, whose times do not
    count, of the systems that are measured more than once. What fails twice is not tried again.

    Args:
        systems: In the order in which they are measured in a round.
        workloads: In their order.
        tree: What the systems show.
        directory: Where they are mounted.
        rounds: How often each system is measured, by its name.
        how: How it is.
        progress: Told what comes next.
    """
    results = Results()
    # Interrupted, it returns what it has.
    with contextlib.suppress(KeyboardInterrupt):
        right = []
        for system in systems:
            progress(f"is the tree right on {system.name}?")
            if _try(results, system, EVERYTHING, tree, directory, How()):
                right.append(system)
        failed: Counter[tuple[str, str]] = Counter()
        for number in range(max(rounds.values()) + 1):  # the first to warm up
            # What comes first in a round pays for what comes last in the one before.
            turn = right if number % 2 == 0 else right[::-1]
            for workload, system in _pairs(workloads, turn, rounds, number):
                key = (workload.name, system.name)
                step = f"round {number}" if number else "warming up"
                progress(f"{step}: {workload.name} on {system.name}")
                sample = None
                if failed[key] < MAX_FAILED:
                    sample = _try(results, system, workload, tree, directory, how)
                    failed[key] += sample is None
                if number:
                    results.add(*key, sample)
                elif sample is not None:
                    results.note_counts(*key, sample)
    return results


def steps(
    systems: Sequence[System], workloads: Sequence[Workload], rounds: Mapping[str, int]
) -> int:
    """Return how many runs `run_rounds` makes when nothing fails."""
    numbers = range(max(rounds.values()) + 1)
    return len(systems) + sum(len(_pairs(workloads, systems, rounds, number)) for number in numbers)


def _pairs(
    workloads: Sequence[Workload],
    systems: Sequence[System],
    rounds: Mapping[str, int],
    number: int,
) -> list[tuple[Workload, System]]:
    """Return what is run in the round of this number; 0 is the one to warm up."""
    return [
        (workload, system)
        for workload in workloads
        for system in systems
        if fits(workload, system)
        and (number <= rounds[system.name] if number else rounds[system.name] > 1)
    ]


def _try(
    results: Results, system: System, workload: Workload, tree: Tree, directory: Path, how: How
) -> Sample | None:
    try:
        return once(system, workload, tree, directory, how)
    except BenchError as error:
        # What is published has no path of this machine in it.
        said = str(error).replace(str(directory), "DIR").replace("\n", " ")
        results.failures.append(Failure(system.name, said[:MAX_SAID]))
        return None
