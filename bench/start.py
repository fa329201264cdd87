"""How long it takes from exec to the first answer of a mount."""

from __future__ import annotations

import os
import shutil
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.errors import BenchError
from bench.systems import BARE, Layers, clear

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from bench.systems import System
    from bench.tree import Tree


@dataclass(frozen=True)
class StartTimes:
    """From the exec of the mount command, in milliseconds: median, least, most."""

    median: float
    least: float
    most: float


def measure_start(
    systems: Sequence[System],
    tree: Tree,
    directory: Path,
    rounds: int,
    progress: Callable[[str], None],
) -> dict[str, StartTimes | str]:
    """Return the times until the first stat in the mount is answered, or why there are none."""
    seconds: dict[str, list[float]] = {}
    failed: dict[str, StartTimes | str] = {}
    mounting = [system for system in systems if system is not BARE]
    for _ in range(rounds):
        for system in mounting:
            progress(system.name)
            try:
                seconds.setdefault(system.name, []).append(_start(system, tree, directory))
            except (BenchError, OSError) as error:
                failed[system.name] = f"{system.name}: {error}"
    times: dict[str, StartTimes | str] = {
        name: StartTimes(statistics.median(found) * 1e3, min(found) * 1e3, max(found) * 1e3)
        for name, found in seconds.items()
        if found
    }
    return times | failed


def _start(system: System, tree: Tree, directory: Path) -> float:
    base = directory / "runs" / f"{system.name}-start"
    clear(base)
    layers = Layers.fresh(base, tree.lowers)
    start = time.perf_counter()
    system.start(layers)
    try:
        os.stat(layers.mnt / "small")
        seconds = time.perf_counter() - start
    finally:
        system.stop(layers)
    shutil.rmtree(base)
    return seconds
