"""How long it takes until a mount answers, and until a container on it has printed something."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import time
from typing import TYPE_CHECKING

from bench.daemons import TIMEOUT, clear
from bench.errors import BenchError, WrongResult
from bench.layers import make_layers
from bench.scaling import Scale
from bench.systems import Layers

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bench.systems import System

FORMAT = 1  # a kept root of another format is made anew
N_LAYERS = 5
# What an OCI runtime does, without control groups, which differ from machine to machine.
ENTER = ("unshare", "--mount", "--uts", "--ipc", "--pid", "--fork")
PROGRAM = "/bin/echo"


def make_root(directory: Path, number: int) -> list[Path]:
    """Return layers whose lowest has a program and its libraries, made now if they are not there.

    Raises:
        BenchError: There is no program to put into it.
    """
    root = directory / f"root-{FORMAT}"
    if not root.exists():
        part = directory / f"{root.name}.part"
        if part.exists():
            shutil.rmtree(part)
        for path in (PROGRAM, *_libraries(PROGRAM)):
            target = part / path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
        part.rename(root)
    return [*make_layers(directory, number - 1), root]


def _libraries(program: str) -> list[str]:
    """Return the paths of what the loader loads for `program`, the loader too."""
    try:
        done = subprocess.run(["ldd", program], capture_output=True, text=True, check=False)
    except OSError as error:
        raise BenchError(f"what {program} needs is found with ldd: {error}") from error
    return libraries_in(done.stdout)


def libraries_in(printed: str) -> list[str]:
    """Return the paths in what ldd prints; nothing for a static program."""
    return re.findall(r"^\s*(?:\S+ => )?(/\S+) \(0x", printed, re.MULTILINE)


def _sample(system: System, lowers: Sequence[Path], base: Path, _number: int) -> dict[str, float]:
    clear(base)
    layers = Layers.fresh(base, lowers)
    start = time.perf_counter()
    system.start(layers)
    try:
        os.stat(layers.mnt / "bin")
        mounted = time.perf_counter()
        _print_from(layers.mnt)
        printed = time.perf_counter()
    finally:
        system.stop(layers)
        gone = time.perf_counter()
        with contextlib.suppress(OSError):  # what could not be unmounted is in the way
            shutil.rmtree(base)
    return {
        "mount_ms": (mounted - start) * 1e3,
        "container_ms": (printed - start) * 1e3,
        "whole_ms": (gone - start) * 1e3,
    }


def _print_from(root: Path) -> None:
    """Run a program in namespaces of its own, with `root` as its root."""
    done = subprocess.run(
        [*ENTER, f"--root={root}", PROGRAM, "ready"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=TIMEOUT,
        check=False,
    )
    if done.stdout != b"ready\n":
        raise WrongResult(f"the container printed {done.stdout!r}, {done.stderr!r}")


START = Scale(
    name="start",
    does="starts a container: mounts 5 layers, enters namespaces, prints, unmounts",
    numbers=(N_LAYERS,),
    quick=(N_LAYERS,),
    rounds=15,
    quick_rounds=5,
    prepare=make_root,
    sample=_sample,
    figures={
        "mount_ms": "exec of the mount command to the first answer, ms",
        "container_ms": "to the first output of a container on it, ms",
        "whole_ms": "to the end of the unmount, ms",
    },
)
