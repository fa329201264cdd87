"""How long a container takes to its first output, beside podman: python -m tests.container_start

Each round runs every engine once, so that whatever else the machine does meets all alike. What is
printed: medians of the time to the first byte and to the end of the command, and their ratio to
those of podman on the kernel's overlayfs. As root; the containers are root's, then a user's.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import subprocess
import tempfile
import time
from collections import defaultdict
from typing import TYPE_CHECKING

from tests.support import clients, containers

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.clients import House

IMAGE = "localhost/busybox:1"
COMMAND = ("echo", "first")
BASE = "podman, overlayfs"


def measure(command: list[str]) -> tuple[float, float]:
    """Return milliseconds to the first output, and to the end."""
    begun = time.perf_counter()
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        first = child.stdout.read(1)
        at_first = time.perf_counter()
        assert first, command
        # not the end of its output: what podman leaves behind may hold that open for long
        assert child.wait(60) == 0, command
        at_end = time.perf_counter()
    return (at_first - begun) * 1000, (at_end - begun) * 1000


def engines(
    house: House, stack: contextlib.ExitStack, *, is_root: bool
) -> dict[str, Callable[[], list[str]]]:
    """Return what is compared: for each name, what makes the command."""
    who = "root" if is_root else "user"
    image = house.base / "busybox.tar"
    found: dict[str, Callable[[], list[str]]] = {}
    tool = stack.enter_context(containers.tool(house, f"ours-{who}", is_root=is_root))
    tool.run("image", "import", image, IMAGE, "--cmd", "sh")
    found["unionfuse"] = lambda: tool.command("run", "--rm", IMAGE, *COMMAND)
    for short, name, program in (
        ("o", BASE, None),
        ("f", "podman, fuse-overlayfs", clients.FUSE_OVERLAYFS),
    ):
        # Where the path of a store is too long for a socket, podman waits 20 s for the exit code.
        engine = stack.enter_context(
            clients.engine(house, f"{who[0]}{short}", is_root=is_root, program=program)
        )
        engine.podman("import", "-q", image, IMAGE)
        run = ["podman", "run", "--rm", "--network=none", IMAGE, *COMMAND]
        found[name] = lambda engine=engine, run=run: engine.command(*run)
    return found


def compare(house: House, rounds: int, *, is_root: bool) -> None:
    """Measure and print."""
    times: dict[str, list[tuple[float, float]]] = defaultdict(list)
    with contextlib.ExitStack() as stack:
        found = engines(house, stack, is_root=is_root)
        for number in range(rounds + 1):
            for name, command in found.items():
                measured = measure(command())
                if number:  # the first one makes what is made once
                    times[name].append(measured)
    print("as root" if is_root else "as a user", f"({rounds} rounds)")
    medians = {name: [statistics.median(column) for column in zip(*each, strict=True)]
               for name, each in times.items()}  # fmt: skip
    for name, (first, whole) in medians.items():
        ratios = first / medians[BASE][0], whole / medians[BASE][1]
        print(
            f"  {name:24} first output {first:5.0f} ms ({ratios[0]:.2f})"
            f"   end {whole:5.0f} ms ({ratios[1]:.2f})"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    with clients.temporary_house() as house:
        tempfile.tempdir = str(house.base)
        for is_root in (True, False):
            compare(house, arguments.rounds, is_root=is_root)


if __name__ == "__main__":
    main()
