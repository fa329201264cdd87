"""The requests of some workloads on a tree that is the same everywhere, against those of before.

They are exact, so that one request more is a fact and no noise. They are those of one kernel:
another one may ask more or less, whatever the daemon does. Left out are workloads whose number
depends on the clock or on which of two processes comes first, and the write-back cache, which
writes times of its own accord (`--io cached`: SETATTR).
"""

from __future__ import annotations

import json
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from bench.errors import BenchError
from bench.measure import How, once
from bench.systems import SYSTEMS
from bench.workloads import WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.tree import Tree

    # By system, workload and opcode.
    Baseline: TypeAlias = Mapping[str, Mapping[str, Mapping[str, int]]]

BASELINE = Path(__file__).with_name("baseline.json")
SYSTEM_NAMES = ("auto", "passthrough")
WORKLOAD_NAMES = (
    "open-read",
    "find-cold",
    "find-again",
    "lstat",
    "missing-cold",
    "missing",
    "tar-again",
    "create",
    "untar",
    "rm-lower",
    "append",
    "chmod",
    "mv-lower",
    "rename",
)


@dataclass(frozen=True)
class Differences:
    """What is not as in the baseline, a line each."""

    more: list[str]
    fewer: list[str]


def count_all(tree: Tree, directory: Path) -> Baseline:
    """Count the requests that somebody waits for.

    Raises:
        BenchError: A workload fails.
    """
    systems = [system for system in SYSTEMS if system.name in SYSTEM_NAMES]
    workloads = [workload for workload in WORKLOADS if workload.name in WORKLOAD_NAMES]
    return {
        system.name: {
            workload.name: dict(
                sorted(
                    once(system, workload, tree, directory, How(count=True)).counts.asked.items()
                )
            )
            for workload in workloads
        }
        for system in systems
    }


def kernel() -> str:
    """Return the kernel by which counts are kept: its first two numbers."""
    return ".".join(platform.release().split(".")[:2])


def keep(counts: Baseline) -> None:
    """Write the baseline."""
    BASELINE.write_text(json.dumps({"kernel": kernel(), "counts": counts}, indent=1) + "\n")


def kept() -> Baseline:
    """Return the counts of the baseline.

    Raises:
        BenchError: It was made with another kernel.
    """
    content = json.loads(BASELINE.read_text())
    if content["kernel"] != kernel():
        raise BenchError(
            f"the counts to compare with are those of Linux {content['kernel']}, this is {kernel()}"
        )
    counts: Baseline = content["counts"]
    return counts


def differences(before: Baseline, counted: Baseline) -> Differences:
    """Return where there are more requests than were kept, and where there are fewer."""
    found = Differences([], [])
    for system, workloads in counted.items():
        for workload, now in workloads.items():
            old = before.get(system, {}).get(workload)
            if old is None:
                found.more.append(f"{workload} on {system}: not in the baseline")
                continue
            total, wanted = sum(now.values()), sum(old.values())
            if total != wanted:
                changed = ", ".join(
                    f"{opcode} {old.get(opcode, 0)} -> {now.get(opcode, 0)}"
                    for opcode in sorted({*old, *now})
                    if old.get(opcode, 0) != now.get(opcode, 0)
                )
                line = f"{workload} on {system}: {total} requests, not {wanted} ({changed})"
                (found.more if total > wanted else found.fewer).append(line)
    return found
