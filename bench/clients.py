"""What container engines take on each system: real podman and containerd, as their users run them.

The engines run in a mount namespace of their own, as in the tests, on stores of their own; what is
timed is one command of theirs, from exec to exit. Systems take turns within a round.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from bench.facts import machine_facts
from tests.support import clients, containerd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tests.support.clients import Engine
    from tests.support.containerd import Containerd

T = TypeVar("T")

IMAGE = "localhost/bench:1"
OURS, PEER, KERNEL = "unionfuse", "fuse-overlayfs", "overlayfs"
SYSTEMS = (OURS, PEER, KERNEL)
N_DIRS, N_FILES = 100, 20  # in the second layer of the image
# Changes files of the layers and makes new ones, some hundred of both.
CHANGE = "for d in /tree/d1*; do echo x >> $d/f1; rm $d/f2; mkdir $d/new; cp $d/f3 $d/new/f3; done"
_CONTAINERFILE = f"""
FROM {IMAGE}
RUN {CHANGE}
RUN rm -r /tree/d2 /tree/d3 && cp -r /tree/d4 /tree/copy
RUN chmod -R go-w /tree/d5 && mv /tree/d6/f1 /tree/moved
"""


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
    base = Path(tempfile.mkdtemp(prefix="ufb.", dir="/tmp"))  # sockets' paths have to be short
    base.chmod(0o755)
    cases: list[Case] = []
    try:
        with clients.house(base) as house:
            clients.mount_program(house.base)
            archive = _image(base)
            for who, is_root in (("root", True), ("rootless", False)):
                with contextlib.ExitStack() as held:
                    # Short names: where the path of a store is too long for a socket, podman
                    # waits 20 s for each exit code.
                    engines = {
                        system: held.enter_context(
                            clients.engine(
                                house, f"{who[-1]}{at}", is_root=is_root, program=program
                            )
                        )
                        for at, (system, program) in enumerate(
                            (
                                (OURS, base / "unionfuse-overlay"),
                                (PEER, clients.FUSE_OVERLAYFS),
                                (KERNEL, None),
                            )
                        )
                    }
                    for engine in engines.values():
                        _prepare(engine, archive)
                    actions = {f"podman, {who}: {name}": a for name, a in _PODMAN.items()}
                    cases += _rounds(actions, engines, rounds, progress)
            with containerd.containerd(house) as running:
                snapshotters = {
                    name: _Snapshotter(running, name, archive) for name in (OURS, KERNEL)
                }
                actions_of = {f"containerd: {name}": a for name, a in _CONTAINERD.items()}
                cases += _rounds(actions_of, snapshotters, rounds, progress)
    finally:
        shutil.rmtree(base, ignore_errors=True)
    loads = (before, os.getloadavg()[0])
    return Report(cases, rounds, loads, machine_facts(Path("/tmp")), _versions())


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


def _image(base: Path) -> Path:
    """Make an image of three layers: a busybox, many small files, and changes of both."""
    files = [(f"tree/d{number}", None) for number in range(N_DIRS)]
    entries: list[tuple[str, str | None]] = [("tree", None), *files]
    for directory, _ in files:
        entries += [(f"{directory}/f{number}", "x" * 2000) for number in range(N_FILES)]
    changes: list[tuple[str, str | None]] = [(f"tree/d{number}/.wh.f9", "") for number in range(50)]
    layers = [
        clients.busybox_rootfs(base),
        containerd.layer(base / "tree.tar", *entries),
        containerd.layer(base / "changes.tar", *changes),
    ]
    archive = containerd.image(base, IMAGE, layers)
    archive.chmod(0o644)
    return archive


def _prepare(engine: Engine, archive: Path) -> None:
    loaded = engine.podman("load", "--quiet", "--input", archive)
    if IMAGE not in loaded:
        engine.podman("tag", loaded.split()[-1], IMAGE)
    context = engine.base / "tmp" / "context"
    engine.run("mkdir", context)
    engine.run("sh", "-c", f"cat > {context}/Containerfile <<'E'{_CONTAINERFILE}E")


@contextlib.contextmanager
def _run(engine: Engine) -> Iterator[Callable[[], object]]:
    yield lambda: engine.podman("run", "--rm", "--network=none", IMAGE, "true")


@contextlib.contextmanager
def _change(engine: Engine) -> Iterator[Callable[[], object]]:
    yield lambda: engine.podman("run", "--rm", "--network=none", IMAGE, "sh", "-c", CHANGE)


@contextlib.contextmanager
def _build(engine: Engine) -> Iterator[Callable[[], object]]:
    context = engine.base / "tmp" / "context"
    built = "localhost/built:1"
    yield lambda: engine.podman(
        "build", "--quiet", "--layers", "--no-cache", "--network=host", "-t", built, context
    )
    engine.podman("rmi", "--force", built)


@contextlib.contextmanager
def _commit(engine: Engine) -> Iterator[Callable[[], object]]:
    engine.podman("run", "--network=none", "--name=c", IMAGE, "sh", "-c", CHANGE)
    yield lambda: engine.podman("commit", "--quiet", "c", "localhost/committed:1")
    engine.podman("rm", "--force", "c")
    engine.podman("rmi", "--force", "localhost/committed:1")


@contextlib.contextmanager
def _export(engine: Engine) -> Iterator[Callable[[], object]]:
    engine.podman("run", "--network=none", "--name=c", IMAGE, "sh", "-c", CHANGE)
    yield lambda: engine.podman("export", "--output=/dev/null", "c")
    engine.podman("rm", "--force", "c")


_PODMAN = {
    "run, true": _run,
    "run, change 300 files": _change,
    "build, 3 steps": _build,
    "commit, 300 changes": _commit,
    "export, 2,300 files": _export,
}


@dataclass(frozen=True)
class _Snapshotter:
    ctd: Containerd
    name: str
    archive: Path

    def ctr(self, *words: str | Path) -> str:
        """Run ctr; the word `@` stands for this snapshotter."""
        chosen = ("--snapshotter", self.name)
        return self.ctd.ctr(
            *(part for word in words for part in (chosen if word == "@" else (word,)))
        )


@contextlib.contextmanager
def _unpack(snapshotter: _Snapshotter) -> Iterator[Callable[[], object]]:
    # with its snapshots, of either snapshotter
    snapshotter.ctr("images", "rm", "--sync", IMAGE)
    yield lambda: snapshotter.ctr("images", "import", "@", snapshotter.archive)


@contextlib.contextmanager
def _ctr_run(snapshotter: _Snapshotter, *command: str) -> Iterator[Callable[[], object]]:
    snapshotter.ctr("images", "import", "@", snapshotter.archive)
    name = f"c{time.monotonic_ns()}"
    yield lambda: snapshotter.ctr("run", "--rm", "@", IMAGE, name, *(command or ("true",)))


@contextlib.contextmanager
def _ctr_change(snapshotter: _Snapshotter) -> Iterator[Callable[[], object]]:
    with _ctr_run(snapshotter, "sh", "-c", CHANGE) as act:
        yield act


@contextlib.contextmanager
def _ctr_diff(snapshotter: _Snapshotter) -> Iterator[Callable[[], object]]:
    snapshotter.ctr("images", "import", "@", snapshotter.archive)
    snapshotter.ctr("run", "@", IMAGE, "diffed", "sh", "-c", CHANGE)
    yield lambda: snapshotter.ctr("snapshots", "@", "diff", "--keep", "diffed")
    snapshotter.ctr("containers", "rm", "diffed")


_CONTAINERD = {
    "import and unpack 3 layers": _unpack,
    "run, true": _ctr_run,
    "run, change 300 files": _ctr_change,
    "diff, 300 changes": _ctr_diff,
}


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
