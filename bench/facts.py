"""What a reader must know of a machine to make something of its figures."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path


def machine_facts(directory: Path) -> dict[str, str | int]:
    """Return the facts of this machine, without its name or a path of it.

    Args:
        directory: Whose filesystem it is that was measured.
    """
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    models = {
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    }
    return {
        "kernel": platform.release(),
        "processor": ", ".join(sorted(models)) or platform.machine(),
        "processors": len(os.sched_getaffinity(0)),
        "memory_mib": memory >> 20,
        "filesystem": filesystem(directory),
        "python": sys.version.split()[0],
        "load": load_average(),
    }


def load_average() -> str:
    """Return how many processes wanted to run in the last minute: what else was going on."""
    return f"{os.getloadavg()[0]:.1f}"


def filesystem(directory: Path) -> str:
    """Return the type of the filesystem that `directory` is on."""
    best = (0, "unknown")
    for line in Path("/proc/self/mountinfo").read_text(errors="replace").splitlines():
        mount, _, source = line.partition(" - ")
        point = mount.split()[4]
        if directory.resolve().is_relative_to(point):
            best = max(best, (len(point), source.split()[0]))
    return best[1]
