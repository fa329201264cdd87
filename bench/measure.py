"""Run one workload on one system: fresh mount, empty upper, checked result."""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.daemons import clear
from bench.errors import BenchError
from bench.requests import Counts, counting
from bench.systems import Layers, Mounted, System
from bench.workloads import Context, Workload

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.tree import Tree

ATTEMPTS = 5
HUNG = 300.0  # seconds after which a mount counts as hung; ten times what the slowest needs


@dataclass(frozen=True)
class Sample:
    """What one run of one workload took."""

    seconds: float
    cpu_seconds: float  # of the daemon
    pss_kib: int  # of the daemon, afterwards
    counts: Counts | None = None  # where they were asked for, and there is a daemon


@dataclass(frozen=True)
class How:
    """How a run is measured."""

    count: bool = False  # the requests too
    drop_caches: bool = False  # on a fresh mount the data of the layers comes from the disk


def once(
    system: System, workload: Workload, tree: Tree, directory: Path, how: How = How()
) -> Sample:
    """Run `workload` once and check what it did.

    Raises:
        BenchError: it failed, hung, or its result is wrong.
    """
    own = 1 if how.drop_caches and not workload.warm else 0
    for _ in range(ATTEMPTS):
        drops = _cache_drops()
        sample = _cleanly(system, workload, tree, directory, how)
        if _cache_drops() == [before + own for before in drops]:
            return sample
        time.sleep(1)
    raise BenchError(
        f"somebody keeps dropping the kernel's caches: {workload.name} is worth nothing"
    )


def _cache_drops() -> list[int]:
    """Return how often /proc/sys/vm/drop_caches has been written to since the machine is up."""
    vmstat = Path("/proc/vmstat").read_text().splitlines()
    return [int(line.split()[1]) for line in vmstat if line.startswith("drop_")]


def _cleanly(system: System, workload: Workload, tree: Tree, directory: Path, how: How) -> Sample:
    base = directory / "runs" / system.name
    clear(base)
    layers = Layers.fresh(base, lowers_for(system, tree))
    (base / "scratch").mkdir()
    try:
        return _once(system, workload, _context(system, workload, layers, tree), layers, how)
    except (OSError, subprocess.SubprocessError) as error:
        raise BenchError(f"{workload.name} fails on {system.name}: {error}") from error
    except BenchError as error:
        raise type(error)(f"{workload.name} on {system.name}: {error}") from error
    finally:
        with contextlib.suppress(OSError):  # what could not be unmounted is in the way
            shutil.rmtree(base)
        # What one system leaves to be written must not slow down the next.
        os.sync()


def lowers_for(system: System, tree: Tree) -> tuple[Path, ...]:
    """Return the layers of the tree in a form that `system` understands."""
    return tree.lowers if system.whiteouts else tree.plain_lowers


def _context(system: System, workload: Workload, layers: Layers, tree: Tree) -> Context:
    if not system.is_union and workload.reads_only:
        return Context(tree.merged, layers.upper, layers.mnt.parent / "scratch", tree)
    upper = layers.upper if system.is_union else layers.mnt
    return Context(layers.mnt, upper, layers.mnt.parent / "scratch", tree)


def _once(system: System, workload: Workload, context: Context, layers: Layers, how: How) -> Sample:
    if not system.is_union and not workload.reads_only:
        _fill(context, workload)
    workload.before_mount(context)
    os.sync()
    if how.drop_caches and not workload.warm:
        Path("/proc/sys/vm/drop_caches").write_text("3")
    with system.mounted(layers) as mount, _watched(mount):
        if system.is_union:
            _prime(layers.mnt)
        workload.prepare(context)
        for _ in range(workload.warm):
            workload.run(context)
        os.sync()
        sample, result = _measure(workload, context, mount, count=how.count)
        workload.verify(context, result)
    workload.verify_upper(context, result)
    return sample


def _measure(
    workload: Workload, context: Context, mount: Mounted, *, count: bool
) -> tuple[Sample, object]:
    gc.collect()
    gc.disable()
    try:
        counted = mount.connection if count else None
        with counting(counted) as counts:
            cpu = mount.cpu_seconds()
            start = time.perf_counter()
            result = workload.run(context)
            seconds = time.perf_counter() - start
            cpu = mount.cpu_seconds() - cpu
    finally:
        gc.enable()
    sample = Sample(seconds, cpu, mount.pss_kib(), None if counted is None else counts)
    return sample, result


def _prime(mnt: Path) -> None:
    """Have the kernel ask what it asks once a mount: whether OPEN, FLUSH, ... are there at all."""
    path = mnt / "prime"
    path.write_bytes(b"a")
    path.read_bytes()
    path.unlink()
    os.listdir(mnt)
    os.statvfs(mnt)
    os.stat(mnt)


def _fill(context: Context, workload: Workload) -> None:
    """Put the tree where no union does: linked, and copied where the workload changes it."""
    for part in sorted(os.listdir(context.tree.merged)):
        how = "-a" if part in workload.changes else "-al"
        subprocess.run(
            ["cp", how, context.tree.merged / part, context.mnt], timeout=HUNG, check=True
        )


@contextlib.contextmanager
def _watched(mount: Mounted) -> Iterator[None]:
    """Break a mount that hangs, so that the calls that wait for it fail."""
    hung = threading.Timer(HUNG, mount.abort)
    hung.daemon = True
    hung.start()
    try:
        yield
    finally:
        hung.cancel()
