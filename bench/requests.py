"""Count the requests that the kernel sends to a FUSE daemon, by opcode, without losing one.

The tracepoint `fuse:fuse_request_send` fires once a request, whoever waits for it. It is read in a
tracing instance of its own, so that nobody else's tracing is disturbed, with a buffer that holds
more than any workload sends; if it overflows all the same, that is an error and no figure.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import BenchError

if TYPE_CHECKING:
    from collections.abc import Iterator

TRACEFS = Path("/sys/kernel/tracing")
BUFFER_KB = 32 * 1024  # a CPU; 40 bytes an event
# Nobody waits for these: the kernel sends them after the call has returned, and INIT before the
# first one.
NOT_WAITED_FOR = frozenset({"RELEASE", "RELEASEDIR", "FORGET", "BATCH_FORGET", "INIT"})

_EVENT = re.compile(rb"fuse_request_send: connection \d+ req \d+ opcode \d+ \((?:FUSE_)?(\w+)\)")
_LOST = re.compile(r"^(?:overrun|dropped events): (\d+)$", re.MULTILINE)


class Counts(Counter[str]):
    """How often each opcode was sent."""

    @property
    def asked(self) -> dict[str, int]:
        """The requests that somebody waited for."""
        return {opcode: n for opcode, n in self.items() if opcode not in NOT_WAITED_FOR}

    @property
    def waited_for(self) -> int:
        """The number of requests that somebody waited for."""
        return sum(self.asked.values())


@contextlib.contextmanager
def counting(connection: int | None) -> Iterator[Counts]:
    """Count the requests of a connection during the block; the counts are there when it ends.

    Args:
        connection: The minor number of the mount's st_dev; None where there is no FUSE in it.
    """
    counts = Counts()
    if connection is None:
        yield counts
        return
    with _tracing_instance() as instance:
        event = instance / "events/fuse/fuse_request_send"
        (instance / "buffer_size_kb").write_text(str(BUFFER_KB))
        (event / "filter").write_text(f"connection == {connection}")
        (event / "enable").write_text("1")
        try:
            yield counts
        finally:
            (event / "enable").write_text("0")
        counts.update(_read(instance))


def why_not() -> str | None:
    """Return why requests can not be counted here, or None."""
    try:
        _mount_tracefs()
    except BenchError as error:
        return str(error)
    return None


def _read(instance: Path) -> Counts:
    for cpu in instance.glob("per_cpu/cpu*/stats"):
        if any(int(lost) for lost in _LOST.findall(cpu.read_text())):
            raise BenchError(f"the kernel's trace buffer of {BUFFER_KB} KiB a CPU was too small")
    counts = Counts()
    with open(instance / "trace", "rb") as trace:
        for line in trace:
            if found := _EVENT.search(line):
                counts[found[1].decode()] += 1
            elif not line.startswith(b"#"):
                raise BenchError(f"the trace has a line that is not understood: {line!r}")
    return counts


@contextlib.contextmanager
def _tracing_instance() -> Iterator[Path]:
    _mount_tracefs()
    instance = TRACEFS / f"instances/unionfuse-bench-{os.getpid()}"
    instance.mkdir()
    try:
        yield instance
    finally:
        instance.rmdir()


def _mount_tracefs() -> None:
    if not (TRACEFS / "instances").is_dir():
        subprocess.run(
            ["mount", "-t", "tracefs", "none", str(TRACEFS)], capture_output=True, check=False
        )
    if not (TRACEFS / "events/fuse/fuse_request_send").is_dir():
        raise BenchError(
            f"no tracepoint fuse:fuse_request_send in {TRACEFS}: it takes root, Linux 6.11 or "
            "newer with CONFIG_FTRACE, and `modprobe fuse`"
        )
