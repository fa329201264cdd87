"""What 1 to 100 mounts at once cost: to make, to keep, to take away."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from typing import TYPE_CHECKING

from bench.daemons import clear
from bench.layers import make_layers
from bench.scaling import Scale
from bench.systems import Layers

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bench.systems import System

N_LAYERS = 5  # of each mount
SETTLE = 1.0  # seconds after which a daemon that has something left to do counts as not idle
IDLE = 2.0  # seconds during which nobody asks for anything


def _sample(system: System, lowers: Sequence[Path], base: Path, number: int) -> dict[str, float]:
    for left in base.glob("*"):
        clear(left)
    try:
        with contextlib.ExitStack() as stack:
            mounts = []
            seconds = 0.0
            for mount in range(number):
                layers = Layers.fresh(base / str(mount), lowers)
                start = time.perf_counter()
                system.start(layers)
                stack.callback(system.stop, layers)
                os.stat(layers.mnt / "d0/f0")
                seconds += time.perf_counter() - start
                mounts.append(system.look(layers.mnt))
            time.sleep(SETTLE)
            cpu = sum(mount.cpu_seconds() for mount in mounts)
            time.sleep(IDLE)
            cpu = sum(mount.cpu_seconds() for mount in mounts) - cpu
            pss = sum(mount.pss_kib() for mount in mounts)
            start = time.perf_counter()
            stack.close()
            down = time.perf_counter() - start
    finally:
        with contextlib.suppress(OSError):  # what could not be unmounted is in the way
            shutil.rmtree(base)
    return {
        "mount_ms": seconds * 1e3 / number,
        "pss_mib": pss / 1024 / number,
        "idle_cpu_ms": cpu * 1e3 / IDLE,
        "umount_ms": down * 1e3 / number,
    }


MOUNTS = Scale(
    name="mounts",
    does="runs many containers on one machine",
    numbers=(1, 10, 100),
    quick=(1, 10),
    rounds=1,
    quick_rounds=1,
    prepare=lambda directory, _number: make_layers(directory, N_LAYERS),
    sample=_sample,
    figures={
        "mount_ms": "to mount one and look a name up, ms",
        "pss_mib": "memory of one daemon (PSS), MiB",
        "idle_cpu_ms": "CPU of all daemons while nobody asks, ms a second",
        "umount_ms": "to unmount one, ms",
    },
)
