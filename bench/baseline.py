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

    from bench.systems import System
    from bench.tree import Tree
    from bench.workloads import Workload

    # By system, workload and opcode.
    Baseline: TypeAlias = Mapping[str, Mapping[str, Mapping[str, int]]]

BASELINE = Path(__file__).with_name("baseline.json")
ATTEMPTS = 3
# With passthrough, what it does differently.
COUNTED = {
    "auto": (
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
    ),
    "passthrough": ("open-read", "create", "untar", "append"),
}


@dataclass(frozen=True)
class Differences:
    """What is not as in the baseline, a line each."""

    more: list[str]
    fewer: list[str]


def count_all(tree: Tree, directory: Path, before: Baseline | None = None) -> Baseline:
    """Count the requests that somebody waits for.

    The kernel may forget a page or a name for want of memory and ask for it again. So what is more
    than in `before`, or not in it, is counted three times, and the least is taken.

    Raises:
        BenchError: A workload fails.
    """
    systems = {system.name: system for system in SYSTEMS}
    workloads = {workload.name: workload for workload in WORKLOADS}
    counts: dict[str, dict[str, Mapping[str, int]]] = {}
    for system, names in COUNTED.items():
        for name in names:
            known = (before or {}).get(system, {}).get(name)
            enough = -1 if known is None else sum(known.values())
            least = _count(systems[system], workloads[name], tree, directory)
            for _ in range(ATTEMPTS - 1):
                if sum(least.values()) > enough:
                    other = _count(systems[system], workloads[name], tree, directory)
                    least = min(least, other, key=lambda count: sum(count.values()))
            counts.setdefault(system, {})[name] = least
    return counts


def _count(system: System, workload: Workload, tree: Tree, directory: Path) -> dict[str, int]:
    counts = once(system, workload, tree, directory, How(count=True)).counts
    return dict(sorted(counts.asked.items())) if counts else {}


def kernel() -> str:
    """Return the kernel by which counts are kept: its first two numbers."""
    return ".".join(platform.release().split(".")[:2])


def kernels() -> set[str]:
    """Return the kernels that there are counts of."""
    return set(json.loads(BASELINE.read_text()))


def keep(counts: Baseline) -> None:
    """Write the baseline of this kernel; those of others stay."""
    content = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    content[kernel()] = counts
    BASELINE.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")


def kept() -> Baseline:
    """Return the baseline of this kernel.

    Raises:
        BenchError: There is none.
    """
    content: dict[str, Baseline] = json.loads(BASELINE.read_text())
    if kernel() not in content:
        raise BenchError(
            f"there are counts to compare with for Linux {', '.join(content)} alone, and this is "
            f"{kernel()}; `--write` keeps those of now"
        )
    return content[kernel()]


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
