"""What a lookup costs with 1 to 400 layers: names that are there, and names that are not."""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import statistics
import time
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING

from bench.errors import BenchError, WrongResult
from bench.systems import Layers, clear

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from bench.systems import System

FORMAT = 1  # kept layers of another format are made anew
NUMBERS = (1, 5, 20, 64, 128, 400)
N_DIRS = 20  # each in every layer
N_NAMES = 20  # in each directory that are there, spread over all layers, and as many that are not


@dataclass(frozen=True)
class LayerSample:
    """One mount with some number of layers."""

    mount_ms: float
    directory_us: float  # the first lookup in a directory, which is in every layer
    name_us: float  # a further one in it, of a name that nobody has asked for
    warm_us: float  # of a name that has been asked for


def measure_layers(
    systems: Sequence[System],
    numbers: Sequence[int],
    directory: Path,
    rounds: int,
    progress: Callable[[str], None],
) -> dict[tuple[str, int], LayerSample | str]:
    """Return the medians of each system with each number of layers, or why there are none."""
    samples: dict[tuple[str, int], list[LayerSample]] = {}
    failed: dict[tuple[str, int], str] = {}
    for number in numbers:
        lowers = make_layers(directory, number)
        for _ in range(rounds):
            for system in systems:
                progress(f"{number} layers on {system.name}")
                try:
                    sample = _sample(system, lowers, directory)
                except (BenchError, OSError) as error:
                    failed[system.name, number] = f"{system.name}, {number} layers: {error}"
                else:
                    samples.setdefault((system.name, number), []).append(sample)
    medians: dict[tuple[str, int], LayerSample | str] = {
        key: LayerSample(
            *(statistics.median(figures) for figures in zip(*map(astuple, found), strict=True))
        )
        for key, found in samples.items()
    }
    return medians | failed


def make_layers(directory: Path, number: int) -> list[Path]:
    """Return so many layers, topmost first, made now if they are not there.

    Their names are short, so that the option of 400 fits into a page.
    """
    base = directory / f"layers-{FORMAT}/{number}"
    if not base.exists():
        part = base.with_name(f"{number}.part")
        if part.exists():
            shutil.rmtree(part)
        for layer in range(number):
            for name in range(N_DIRS):
                (part / f"{layer}/d{name}").mkdir(parents=True)
        for name in range(N_NAMES):
            layer = (number - 1) * name // (N_NAMES - 1)
            for parent in range(N_DIRS):
                (part / f"{layer}/d{parent}/f{name}").write_text(f"{layer}")
        part.rename(base)
    return [base / f"{layer}" for layer in range(number)]


def _sample(system: System, lowers: Sequence[Path], directory: Path) -> LayerSample:
    base = directory / "runs" / f"{system.name}-layers"
    clear(base)
    layers = Layers.fresh(base, lowers)
    gc.collect()
    start = time.perf_counter()
    system.start(layers)
    try:
        os.stat(layers.mnt)
        mount = time.perf_counter() - start
        # The first name of a directory is in the topmost layer, so that what is measured is not
        # how far down it lies.
        names = [f"f{name}" for name in range(N_NAMES)] + [f"no{name}" for name in range(N_NAMES)]
        first = _look_up(layers.mnt, names[:1])
        others = _look_up(layers.mnt, names[1:])
        warm = min(_look_up(layers.mnt, names) for _ in range(3))
    finally:
        system.stop(layers)
        with contextlib.suppress(OSError):  # what could not be unmounted is in the way
            shutil.rmtree(base)
    return LayerSample(mount * 1e3, first * 1e6, others * 1e6, warm * 1e6)


def _look_up(mnt: Path, names: Sequence[str]) -> float:
    """Stat these names in each directory; return the seconds that one took."""
    paths = [f"{mnt}/d{parent}/{name}" for parent in range(N_DIRS) for name in names]
    found = 0
    start = time.perf_counter()
    for path in paths:
        try:
            os.stat(path)
        except FileNotFoundError:
            continue
        found += 1
    seconds = time.perf_counter() - start
    wanted = N_DIRS * sum(name.startswith("f") for name in names)
    if found != wanted:
        raise WrongResult(f"{found} names found, not {wanted}")
    return seconds / len(paths)
