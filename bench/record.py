"""A record of a measuring, and its JSON: every sample, and what it was measured on.

There is no name and no path of the machine in it, so that it can be published.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError
from bench.facts import load_average, machine_facts
from bench.measure import Sample
from bench.requests import Counts
from bench.rounds import Failure, Results
from bench.scaling import Point
from bench.systems import OVERLAYFS
from bench.workloads import GROUPS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from bench.scaling import Scale
    from bench.systems import System
    from bench.workloads import Workload

FORMAT = 2


@dataclass(frozen=True)
class SystemFacts:
    """What was compared."""

    summary: str
    version: str
    ours: bool
    rounds: int  # in which it was measured


@dataclass(frozen=True)
class WorkloadFacts:
    """What was done."""

    group: str
    does: str
    unsteady: tuple[str, ...] = ()  # systems on which the number of requests is not exact


@dataclass(frozen=True)
class ScaleFacts:
    """Of what there were few and many."""

    does: str
    figures: dict[str, str]


@dataclass(frozen=True)
class Record:
    """Everything that was measured at one time, in the order in which it is to be shown."""

    machine: dict[str, str | int]
    time: str
    drop_caches: bool
    systems: dict[str, SystemFacts]
    workloads: dict[str, WorkloadFacts]
    scales: dict[str, ScaleFacts]
    results: Results
    points: list[Point] = field(default_factory=list)

    @property
    def reference(self) -> str:
        """The system to which times are set in relation."""
        return OVERLAYFS.name if OVERLAYFS.name in self.systems else next(iter(self.systems))

    def note_load(self) -> None:
        """Add the load of now to those that were before and after each part of the measuring."""
        self.machine["load"] = f"{self.machine['load']}, {load_average()}"

    def groups(self) -> dict[str, list[str]]:
        """Return the names of the workloads by group."""
        found: dict[str, list[str]] = {}
        for name, facts in self.workloads.items():
            found.setdefault(facts.group, []).append(name)
        return found

    def at(self, scale: str) -> list[int]:
        """Return the numbers that one scale was measured with."""
        return sorted({point.at for point in self.points if point.scale == scale})

    def point(self, scale: str, system: str, at: int) -> Point | None:
        """Return the figures of one system with so many."""
        for point in self.points:
            if (point.scale, point.system, point.at) == (scale, system, at):
                return point
        return None


def new_record(
    systems: Sequence[System],
    directory: Path,
    *,
    rounds: Mapping[str, int] | None = None,
    drop_caches: bool = False,
    workloads: Sequence[Workload] = (),
    scales: Sequence[Scale] = (),
) -> Record:
    """Return a record of this machine in which nothing is measured yet."""
    group_of = {workload.name: group for group, found in GROUPS.items() for workload in found}
    return Record(
        machine=machine_facts(directory),
        time=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        drop_caches=drop_caches,
        systems={
            s.name: SystemFacts(s.summary, s.version(), s.ours, (rounds or {}).get(s.name, 0))
            for s in systems
        },
        workloads={
            w.name: WorkloadFacts(group_of[w.name], w.does, tuple(sorted(w.unsteady)))
            for w in workloads
        },
        scales={scale.name: ScaleFacts(scale.does, dict(scale.figures)) for scale in scales},
        results=Results(),
    )


def save(record: Record, path: Path) -> None:
    """Write a record as JSON."""
    results = record.results
    content = {
        "format": FORMAT,
        "machine": record.machine,
        "time": record.time,
        "drop_caches": record.drop_caches,
        "systems": {name: asdict(facts) for name, facts in record.systems.items()},
        "workloads": {name: asdict(facts) for name, facts in record.workloads.items()},
        "scales": {name: asdict(facts) for name, facts in record.scales.items()},
        "samples": [
            {
                "workload": workload,
                "system": system,
                "requests": results.counts.get((workload, system)),
                "rounds": [
                    sample
                    and {
                        "seconds": round(sample.seconds, 6),
                        "cpu_seconds": round(sample.cpu_seconds, 6),
                        "pss_kib": sample.pss_kib,
                        "requests": sample.counts,
                    }
                    for sample in samples
                ],
            }
            for (workload, system), samples in results.samples.items()
        ],
        "points": [asdict(point) for point in record.points],
        "failures": [asdict(failure) for failure in results.failures],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")


def load(path: Path) -> Record:
    """Read a record.

    Raises:
        BenchError: The file is not there, or is none of this format.
    """
    try:
        content = json.loads(path.read_text())
        if content["format"] != FORMAT:
            raise BenchError(f"{path} has format {content['format']}, not {FORMAT}")
        results = Results()
        for entry in content["samples"]:
            key = entry["workload"], entry["system"]
            results.samples[key] = [round_ and _sample(round_) for round_ in entry["rounds"]]
            if entry["requests"] is not None:
                results.counts[key] = Counts(entry["requests"])
        results.failures += [Failure(**failure) for failure in content["failures"]]
        return Record(
            machine=content["machine"],
            time=content["time"],
            drop_caches=content["drop_caches"],
            systems={name: SystemFacts(**facts) for name, facts in content["systems"].items()},
            workloads={
                name: WorkloadFacts(**{**facts, "unsteady": tuple(facts["unsteady"])})
                for name, facts in content["workloads"].items()
            },
            scales={name: ScaleFacts(**facts) for name, facts in content["scales"].items()},
            results=results,
            points=[Point(**point) for point in content["points"]],
        )
    except OSError as error:
        raise BenchError(f"{path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BenchError(f"{path} is no record of a benchmark: {error!r}") from error


def _sample(content: dict[str, Any]) -> Sample:
    requests = content.pop("requests")
    return Sample(**content, counts=None if requests is None else Counts(requests))
