"""Run all tests, several parts at once: `python -m tests`.

What takes the time is waiting: for a daemon to start, for a disk, for a mount to go. So parts run
side by side, one a core. Those that mount have a mount namespace of their own each, if they may:
a namespace that one of them makes has a copy of every mount that is there, and an unmount would
wait for it. What a part printed is shown when it has ended, the last line of each at the end.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
FILES = sorted(path.name for path in (HERE / "integration").glob("test_*.py"))
# What is in no list is a part of its own, which takes longest and begins first.
MOUNTING = (
    (
        "comparisons",
        (
            "test_differential.py",
            "test_stress.py",
            "test_fsx.py",
            "test_forget.py",
            "test_programs.py",
            "test_request_counts.py",
        ),
    ),
    (
        "engines",
        ("test_podman.py", "test_containerd.py", "test_snapshotter.py", "test_overlay.py"),
    ),
    (
        "images and containers",
        (
            "test_build.py",
            "test_container_modes.py",
            "test_containers.py",
            "test_image_crash.py",
            "test_image_engines.py",
            "test_image_mount.py",
            "test_layer_tars.py",
            "test_registry.py",
        ),
    ),
)


@dataclass
class Part:
    """Tests that one pytest runs.

    Attributes:
        mounts: whether it wants a mount namespace of its own.
    """

    name: str
    paths: list[str]
    mounts: bool = True
    code: int = -1
    seconds: float = 0
    output: str = field(default="", repr=False)

    @property
    def last_line(self) -> str:
        """What pytest says in the end."""
        return self.output.rstrip().rpartition("\n")[2].strip("= ")


def parts() -> list[Part]:
    """Return what there is to run, so that every file is in one part."""
    listed = {file for _, files in MOUNTING for file in files}
    rest = [file for file in FILES if file not in listed]
    mounting = [("the union", tuple(rest)), *MOUNTING]
    return [
        *(
            Part(name, [str(HERE / "integration" / file) for file in files])
            for name, files in mounting
        ),
        Part("unit and property", [str(HERE / "unit"), str(HERE / "property")], mounts=False),
    ]


def run(part: Part, arguments: list[str]) -> None:
    """Run one part, and show what it printed."""
    command = [sys.executable, "-m", "pytest", *arguments, *part.paths]
    if part.mounts and os.geteuid() == 0:
        command = ["unshare", "--mount", "--propagation", "private", *command]
    begun = time.monotonic()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, check=False)
        output.seek(0)
        part.output = output.read()
    part.code, part.seconds = process.returncode, time.monotonic() - begun
    print(f"\n=== {part.name}\n{part.output}", flush=True)


def main() -> int:
    """Run every part; return the code of the first that failed, or 0."""
    parser = argparse.ArgumentParser(prog="python -m tests", description=__doc__)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many at once")
    options, arguments = parser.parse_known_args()
    todo = parts()
    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(lambda part: run(part, arguments), todo))
    print("\n=== all")
    for part in todo:
        print(f"{part.name:22} {part.last_line} (exit code {part.code}, {part.seconds:.0f} s)")
    return next((part.code for part in todo if part.code), 0)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
