"""What container engines take on each system: real podman and containerd, as their users run them.

The engines run in a mount namespace of their own, as in the tests, on stores of their own; what is
timed is one command of theirs, from exec to exit. Systems take turns within a round.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from bench.client_cases import (
    CONTAINERD,
    N_DIRS,
    N_FILES,
    ROOT,
    ROOTLESS,
    Snapshotter,
    make_image,
    prepare,
)
from bench.facts import machine_facts
from tests.support import clients, containerd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tests.support.clients import Engine, House


T = TypeVar("T")

OURS, PEER, KERNEL = "unionfuse", "fuse-overlayfs", "overlayfs"
SYSTEMS = (OURS, PEER, KERNEL)


@dataclass
class Case:
    """One thing that an engine does.

    Attributes:
        name: what the table calls it.
        times: seconds, by system.
    """

    name: str
    times: dict[str, list[float]] = field(default_factory=dict)

    def median(self, system: str) -> float | None:
        """Return the median of the seconds, None where it was not measured."""
        times = self.times.get(system)
        return statistics.median(times) if times else None


@dataclass(frozen=True)
class Report:
    """What was measured, and where.

    Attributes:
        loads: the load average of one minute before and after.
    """

    cases: list[Case]
    rounds: int
    loads: tuple[float, float]
    facts: dict[str, str | int]
    versions: dict[str, str]


def measure(rounds: int, progress: Callable[[str], None]) -> Report:
    """Measure every case on every system, after one round to warm up."""
    before = os.getloadavg()[0]
    cases: list[Case] = []
    with clients.temporary_house() as house:
        archive = make_image(house.base)
        for actions, is_root in ((ROOT, True), (ROOTLESS, False)):
            with _engines(house, archive, is_root=is_root) as engines:
                cases += _rounds(actions, engines, rounds, progress)
        with containerd.containerd(house) as running:
            snapshotters = {name: Snapshotter(running, name, archive) for name in (OURS, KERNEL)}
            cases += _rounds(CONTAINERD, snapshotters, rounds, progress)
    loads = (before, os.getloadavg()[0])
    return Report(cases, rounds, loads, machine_facts(Path("/tmp")), _versions())


@contextlib.contextmanager
def _engines(house: House, archive: Path, *, is_root: bool) -> Iterator[dict[str, Engine]]:
    """Yield podman and buildah on each system, with the image in their stores."""
    programs = {
        OURS: clients.make_program(house.base, f"unionfuse-overlay-{int(is_root)}", ".overlay"),
        PEER: clients.FUSE_OVERLAYFS,
        KERNEL: None,
    }
    with contextlib.ExitStack() as held:
        engines = {}
        for system, program in programs.items():
            # Short names: where the path of a store is too long for a socket, podman waits 20 s
            # for each exit code.
            name = f"{int(is_root)}{system[0]}"
            engine = clients.engine(house, name, is_root=is_root, program=program)
            engines[system] = held.enter_context(engine)
            prepare(engines[system], archive)
        yield engines


def _rounds(
    actions: Mapping[str, Callable[[T], contextlib.AbstractContextManager[Callable[[], object]]]],
    subjects: Mapping[str, T],
    rounds: int,
    progress: Callable[[str], None],
) -> list[Case]:
    cases = [Case(name) for name in actions]
    for number in range(rounds + 1):
        order = list(subjects)
        order = order[number % len(order) :] + order[: number % len(order)]
        for case in cases:
            progress(f"{case.name} ({number}/{rounds})")
            for system in order:
                with actions[case.name](subjects[system]) as act:
                    began = time.perf_counter()
                    act()
                    seconds = time.perf_counter() - began
                if number:
                    case.times.setdefault(system, []).append(seconds)
    return cases


def _versions() -> dict[str, str]:
    asked = {
        "podman": ["podman", "--version"],
        "crun": ["crun", "--version"],
        "fuse-overlayfs": [str(clients.FUSE_OVERLAYFS), "--version"],
        "containerd": ["containerd", "--version"],
        "runc": ["/usr/sbin/runc", "--version"],
    }
    found = {}
    for name, command in asked.items():
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
        lines = [line for line in done.stdout.splitlines() if name in line]
        words = lines[0].split()
        found[name] = next(word for word in words if word[:1].isdigit())
    return found


def written(report: Report) -> str:
    """Return the report as a page of the documentation."""
    facts = report.facts
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    lines = [
        "# Container engines on unionfuse, fuse-overlayfs and overlayfs",
        "",
        "Seconds from the exec of a command to its end: medians of "
        f"{report.rounds} rounds in which the systems took turns, after one to warm up. The image "
        f"has three layers: a busybox, {N_DIRS * N_FILES:,} files of 2 kB, and whiteouts.",
        "",
        f"Kernel {facts['kernel']}, {facts['processors']} processors, {facts['filesystem']}, "
        f"Python {facts['python']}; {versions}.",
        f"Load average of one minute: {report.loads[0]:.1f} before, {report.loads[1]:.1f} after"
        f"{_busy(report)}.",
        "",
        f"| | {OURS} | {PEER} | {KERNEL} | {OURS} / {PEER} | {OURS} / {KERNEL} |",
        "|---|---|---|---|---|---|",
    ]
    for case in report.cases:
        ours, peer, kernel = (case.median(system) for system in SYSTEMS)
        cells = [_seconds(ours), _seconds(peer), _seconds(kernel)]
        cells += [_ratio(ours, peer), _ratio(ours, kernel)]
        lines.append(f"| {case.name} | {' | '.join(cells)} |")
    lines += [
        "",
        "Rootless podman on overlayfs is on the kernel's, in a user namespace. For containerd, "
        "overlayfs is its own snapshotter; one for fuse-overlayfs is not in Debian: no figures.",
        "",
        "Made by `make bench-clients`.",
        "",
    ]
    return "\n".join(lines)


def _busy(report: Report) -> str:
    processors = report.facts["processors"]
    busy = isinstance(processors, int) and max(report.loads) > processors
    return ": others used the machine too, so ratios say more than seconds" if busy else ""


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _ratio(one: float | None, other: float | None) -> str:
    return "" if one is None or other is None else f"{one / other:.2f}"
