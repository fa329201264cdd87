"""Run the command line, and a daemon whose inner workings a test has changed."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from tests.support.mounts import REPOSITORY, daemon_pids, is_mounted
from tests.support.sessions import session_option

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from tests.support.mounts import Layers


def unionfuse(
    *arguments: str | bytes | Path,
    prefix: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = 60,
) -> subprocess.CompletedProcess[str]:
    """Run `unionfuse` with these arguments and return how it ended.

    Its output is read through pipes until their end: a daemon that keeps them open is a timeout.
    """
    if arguments[:1] == ("mount",):
        arguments = ("mount", *session_option(), *arguments[1:])
    return command(
        sys.executable, "-m", "unionfuse", *arguments,
        prefix=prefix, env=env, cwd=cwd, timeout=timeout,
    )  # fmt: skip


def overlay(
    *arguments: str | bytes | Path,
    prefix: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run `unionfuse-overlay` with these arguments and return how it ended."""
    program = "from unionfuse.cli.overlay import main; main()"
    return command(sys.executable, "-c", program, *arguments, prefix=prefix, env=env, cwd=cwd)


def command(
    *arguments: str | bytes | Path,
    prefix: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = 60,
) -> subprocess.CompletedProcess[str]:
    """Run a command, after `prefix`, that finds this package; return how it ended."""
    given = {**os.environ, "PYTHONPATH": str(REPOSITORY), "LC_ALL": "C.UTF-8", **(env or {})}
    return subprocess.run(
        [*prefix, *arguments],
        env=given,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="surrogateescape",
        timeout=timeout,
        check=False,
    )


def wait_until(condition: Callable[[], object], seconds: float = 20) -> None:
    """Wait for `condition` to hold.

    Raises:
        AssertionError: It does not in time.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"did not come to be in {seconds} s"
        time.sleep(0.01)


def statistics(layers: Layers) -> tuple[int, dict[str, int]]:
    """Ask the daemon for the number of its nodes and of requests of each kind."""
    [pid] = daemon_pids(layers.mnt)
    before = layers.log.stat().st_size
    os.kill(pid, signal.SIGUSR1)
    pattern = re.compile(r"(\d+) nodes; requests: (.*)")

    def answer() -> re.Match[str] | None:
        with open(layers.log) as log:
            log.seek(before)
            return pattern.search(log.read())

    wait_until(answer)
    found = answer()
    assert found
    words = [] if found[2] == "none" else [pair.split() for pair in found[2].split(", ")]
    return int(found[1]), {kind: int(count) for kind, count in words}


def open_descriptors(pid: int) -> int:
    """Return how many descriptors a process has."""
    return len(os.listdir(f"/proc/{pid}/fd"))


@contextlib.contextmanager
def foreground(
    layers: Layers, *options: str, before: str = ""
) -> Iterator[subprocess.Popen[bytes]]:
    """Serve `layers` in a process of ours, which runs the statements `before` first."""
    program = f"{before}\nfrom unionfuse.cli import main\nmain()"
    arguments = [
        "mount", *session_option(), "-f", "--log", layers.log, "--workdir", layers.work, *options,
        ":".join(map(str, layers.lowers)), layers.upper, layers.mnt,
    ]  # fmt: skip
    with subprocess.Popen([sys.executable, "-c", program, *arguments], cwd=REPOSITORY) as process:
        try:
            wait_until(lambda: is_mounted(layers.mnt) or process.poll() is not None)
            os.listdir(layers.mnt)  # waits until it serves
            yield process
        finally:
            if is_mounted(layers.mnt):
                unionfuse("umount", "--lazy", layers.mnt)
            process.kill()


def slow_copy(seconds: float, *, first: bool = True) -> str:
    """Return statements that make every copy-up wait in its own thread, with its data.

    It waits before its data is there, or after that (not `first`).
    """
    wait = f"time.sleep({seconds})"
    return f"""
import time
from unionfuse.union.copy_up import CopyUp
from unionfuse.union.state import Union
Union.makes_metacopies = False
real_copy_data = CopyUp.copy_data
def copy_data(self):
    {wait if first else "pass"}
    real_copy_data(self)
    {"pass" if first else wait}
CopyUp.copy_data = copy_data
"""
