"""Measure what grows with the number of something: layers, files, mounts.

A scale is data: how the layers of one number are made, what is measured on a system with them, and
what the figures are called.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.errors import BenchError
from bench.rounds import MAX_SAID, Failure

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from bench.systems import System


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Something of which there can be few or many."""

    name: str  # of what there are many
    does: str  # what a user does when they do that, in a line
    numbers: tuple[int, ...]
    quick: tuple[int, ...]  # those of a run of some minutes
    rounds: int
    quick_rounds: int
    # Returns the layers of so many, topmost first, made now if they are not there.
    prepare: Callable[[Path, int], Sequence[Path]]
    # Measures one system with these layers in an empty directory of its own.
    sample: Callable[[System, Sequence[Path], Path, int], Mapping[str, float]]
    figures: Mapping[str, str]  # the name of each figure, and what it says, with its unit


@dataclass(frozen=True)
class Point:
    """The figures of one system with so many of something: medians, and the extremes."""

    scale: str
    system: str
    at: int
    figures: Mapping[str, float]
    least: Mapping[str, float]
    most: Mapping[str, float]


def measure(
    scale: Scale,
    systems: Sequence[System],
    numbers: Sequence[int],
    rounds: int,
    directory: Path,
    progress: Callable[[str], None],
) -> tuple[list[Point], list[Failure]]:
    """Measure each system with each number, the systems in turn."""
    points: list[Point] = []
    failures: dict[tuple[str, int], Failure] = {}
    for number in numbers:
        lowers = scale.prepare(directory, number)
        samples: dict[str, list[Mapping[str, float]]] = {}
        for _ in range(rounds):
            for system in systems:
                progress(f"{number:,} {scale.name} on {system.name}")
                if (system.name, number) in failures:
                    continue
                try:
                    base = directory / "runs" / f"{system.name}-{scale.name}"
                    sample = scale.sample(system, lowers, base, number)
                except (BenchError, OSError) as error:
                    said = str(error).replace(str(directory), "DIR").replace("\n", " ")[:MAX_SAID]
                    failure = Failure(system.name, f"{number} {scale.name}: {said}")
                    failures[system.name, number] = failure
                else:
                    samples.setdefault(system.name, []).append(sample)
        points += [
            summary(scale.name, system, number, found)
            for system, found in samples.items()
            if (system, number) not in failures
        ]
    return points, list(failures.values())


def summary(scale: str, system: str, at: int, samples: Sequence[Mapping[str, float]]) -> Point:
    """Return the medians and the extremes of some samples."""
    columns = {name: [sample[name] for sample in samples] for name in samples[0]}
    return Point(
        scale,
        system,
        at,
        {name: statistics.median(values) for name, values in columns.items()},
        {name: min(values) for name, values in columns.items()},
        {name: max(values) for name, values in columns.items()},
    )
