"""What a lookup costs with 1 to 400 layers: names that are there, and names that are not."""

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
N_DIRS = 20  # each in every layer
N_NAMES = 20  # in each directory that are there, spread over all layers, and as many that are not


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


def _sample(system: System, lowers: Sequence[Path], base: Path, _number: int) -> dict[str, float]:
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
    return {
        "mount_ms": mount * 1e3,
        "first_us": first * 1e6,
        "further_us": others * 1e6,
        "known_us": warm * 1e6,
    }


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


LAYERS = Scale(
    name="layers",
    does="mounts an image of many layers and looks names up in it",
    numbers=(1, 5, 20, 64, 128, 400),
    quick=(1, 20, 128),
    rounds=3,
    quick_rounds=1,
    prepare=make_layers,
    sample=_sample,
    figures={
        "mount_ms": "to mount, ms",
        "first_us": "first lookup in a directory that is in every layer, us",
        "further_us": "lookup of a further name in it, us",
        "known_us": "lookup of a known name, us",
    },
)
