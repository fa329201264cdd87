"""Run many containers of one image at once: python -m tests.containers --count 100

All are started side by side, all have to answer, and all have to be gone afterwards. What is
printed: how long it took, and the memory that one more container takes. With `--kills N`, commands
are killed at random moments instead. As root; `--user` runs them as a plain user.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support import clients, containers

if TYPE_CHECKING:
    from tests.support.containers import Tool

IMAGE = "localhost/busybox:1"
AT_ONCE = 8  # commands; the containers are all there at once
HELPERS = ("daemon_pid", "conmon_pid", "pid")


def memory(pid: int) -> dict[str, int]:
    """Return KiB of a process: its share (Pss), and what it has alone."""
    found = {"Pss": 0, "Private": 0}
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            key, _, value = line.partition(":")
            if key == "Pss":
                found["Pss"] += int(value.split()[0])
            elif key in ("Private_Clean", "Private_Dirty"):
                found["Private"] += int(value.split()[0])
    return found


def available() -> int:
    """Return the KiB that are free, or could be at once."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1])
    raise AssertionError("there is no MemAvailable")


def run_many(tool: Tool, count: int, options: list[str]) -> None:
    """Start, ask, measure and remove `count` containers."""
    names = [f"many{number}" for number in range(count)]
    before = available()
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        begun = time.monotonic()
        started = [
            pool.submit(tool.out, "run", "-d", "--name", name, *options, IMAGE, "sleep", "1000")
            for name in names
        ]
        for future in started:
            future.result()
        print(f"{count} started in {time.monotonic() - begun:.1f} s")
        begun = time.monotonic()
        answers = list(pool.map(lambda name: tool.out("exec", name, "cat", "/etc/hostname"), names))
        print(f"{count} answered in {time.monotonic() - begun:.1f} s")
        ids = tool.out("ps", "-q").split()
        assert sorted(answers) == sorted(ids), "each has a hostname of its own"
        print(f"{(before - available()) / count / 1024:.1f} MiB less are available, for each")
        states = [tool.state(name) for name in names[:: max(1, count // 10)]]
        for helper in HELPERS:
            found = [memory(state[helper]) for state in states]
            pss = statistics.median(each["Pss"] for each in found) / 1024
            private = statistics.median(each["Private"] for each in found) / 1024
            print(f"  {helper}: {pss:.1f} MiB proportional, {private:.1f} MiB private")
        begun = time.monotonic()
        tool.run("rm", "-f", *names)
        print(f"{count} removed in {time.monotonic() - begun:.1f} s")
    wait_until_clean(tool)
    print("nothing is left")


def wait_until_clean(tool: Tool) -> None:
    try:
        containers.wait_for(tool.is_clean)
    except AssertionError:
        raise AssertionError("left: " + "\n".join(tool.left())) from None


def kill_many(tool: Tool, count: int, seed: int) -> None:
    """Kill `count` commands at random moments; after each, everything is whole or said to be ended.

    Whatever was cut, the next commands find it, and in the end nothing is left.
    """
    randomly = random.Random(seed)
    for number in range(count):
        names = tool.out("ps", "-a", "--json")
        known = [row["name"] for row in json.loads(names)]
        victim = randomly.choice(known) if known else "none"
        command = randomly.choice(
            [
                ["run", "-d", "--name", f"kill{number}", IMAGE, "sleep", "1000"],
                ["run", "--rm", IMAGE, "echo", "x"],
                ["start", victim],
                ["stop", "-t", "0", victim],
                ["rm", "-f", victim],
                ["commit", victim, "localhost/cut:1"],
            ]
        )
        with tool.start(*command, stderr=subprocess.DEVNULL) as killed:
            time.sleep(randomly.uniform(0, 0.8))
            killed.kill()
        for row in json.loads(tool.out("ps", "--json")):
            tool.run("exec", row["name"], "true")
        if len(known) > 4:
            tool.run("rm", "-f", *known)
    print(f"{count} commands killed, and every container that was listed answered")
    ids = tool.out("ps", "-aq").split()
    if ids:
        tool.run("rm", "-f", *ids)
    tool.run("prune")
    wait_until_clean(tool)
    print("nothing is left")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--user", action="store_true", help="as a plain user")
    parser.add_argument("--kills", type=int, help="kill so many commands instead")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--io", default="auto", help="how file data goes")
    arguments = parser.parse_args()
    with (
        clients.temporary_house() as house,
        containers.tool(house, "many", is_root=not arguments.user) as tool,
    ):
        tempfile.tempdir = str(house.base)
        tool.run("image", "import", house.base / "busybox.tar", IMAGE, "--cmd", "sh")
        if arguments.kills is not None:
            kill_many(tool, arguments.kills, arguments.seed)
        else:
            run_many(tool, arguments.count, ["--io", arguments.io])


if __name__ == "__main__":
    sys.exit(main())
