"""What a walk over 10,000 to 1,000,000 files costs, and what memory it leaves in the daemon."""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import time
from typing import TYPE_CHECKING

from bench.daemons import clear
from bench.errors import WrongResult
from bench.scaling import Scale
from bench.systems import Layers

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bench.systems import System

FORMAT = 1  # kept layers of another format are made anew
IN_DIRECTORY = 1_000


def make_files(directory: Path, number: int) -> list[Path]:
    """Return a layer of so many empty files, made now if it is not there."""
    layer = directory / f"files-{FORMAT}/{number}"
    if not layer.exists():
        part = layer.with_name(f"{number}.part")
        if part.exists():
            shutil.rmtree(part)
        for file in range(number):
            if file % IN_DIRECTORY == 0:
                inside = part / f"d{file // IN_DIRECTORY}"
                inside.mkdir(parents=True)
            os.close(os.open(f"{inside}/file{file}", os.O_CREAT | os.O_WRONLY, 0o644))
        part.rename(layer)
    return [layer]


def _sample(system: System, lowers: Sequence[Path], base: Path, number: int) -> dict[str, float]:
    clear(base)
    layers = Layers.fresh(base, lowers)
    try:
        with system.mounted(layers) as mount:
            gc.collect()
            cpu = mount.cpu_seconds()
            first = _walk(layers.mnt, number)
            cpu = mount.cpu_seconds() - cpu
            again = _walk(layers.mnt, number)
            return {
                "walk_s": first,
                "again_s": again,
                "cpu_s": cpu,
                "pss_mib": mount.pss_kib() / 1024,
            }
    finally:
        with contextlib.suppress(OSError):  # what could not be unmounted is in the way
            shutil.rmtree(base)


def _walk(mnt: Path, number: int) -> float:
    """List every directory and stat every file; return the seconds that it took."""
    found = 0
    start = time.perf_counter()
    for directory in os.listdir(mnt):
        with os.scandir(mnt / directory) as entries:
            found += sum(entry.stat(follow_symlinks=False).st_size == 0 for entry in entries)
    seconds = time.perf_counter() - start
    if found != number:
        raise WrongResult(f"{found} empty files found, not {number}")
    return seconds


FILES = Scale(
    name="files",
    does="walks over a big tree once (a backup, a scan, a search)",
    numbers=(10_000, 100_000, 1_000_000),
    quick=(10_000, 100_000),
    rounds=1,
    quick_rounds=1,
    prepare=make_files,
    sample=_sample,
    figures={
        "walk_s": "first walk, s",
        "again_s": "second walk, s",
        "cpu_s": "CPU of the daemon for the first, s",
        "pss_mib": "memory of the daemon afterwards (PSS), MiB",
    },
)
