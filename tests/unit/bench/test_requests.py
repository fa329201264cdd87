"""The reading of the kernel's trace."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bench import requests
from bench.errors import BenchError

if TYPE_CHECKING:
    from pathlib import Path

HEADER = "# tracer: nop\n#\n#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION\n"
LINE = (
    "  tar-301  [001] .....  55.1: fuse_request_send: connection 45 req 2 opcode {} ({}) len 46 \n"
)


def instance(path: Path, lines: str, *, overrun: int = 0, dropped: int = 0) -> Path:
    (path / "trace").write_text(HEADER + lines)
    for cpu in (0, 1):
        stats = path / f"per_cpu/cpu{cpu}/stats"
        stats.parent.mkdir(parents=True)
        lost = f"overrun: {overrun * cpu}\ncommit overrun: 0\ndropped events: {dropped * cpu}\n"
        stats.write_text(f"entries: 2\n{lost}")
    return path


def test_requests_are_counted_by_opcode(tmp_path):
    lines = LINE.format(1, "FUSE_LOOKUP") * 2 + LINE.format(18, "FUSE_RELEASE")
    assert requests._read(instance(tmp_path, lines)) == {"LOOKUP": 2, "RELEASE": 1}


def test_an_opcode_that_the_kernel_has_no_name_for_is_counted(tmp_path):
    assert requests._read(instance(tmp_path, LINE.format(53, "0x35"))) == {"0x35": 1}


@pytest.mark.parametrize("lost", ["overrun", "dropped"])
def test_a_lost_event_is_an_error(tmp_path, lost):
    path = instance(tmp_path, LINE.format(1, "FUSE_LOOKUP"), **{lost: 1})
    with pytest.raises(BenchError, match="too small"):
        requests._read(path)


def test_a_line_that_is_not_understood_is_an_error(tmp_path):
    with pytest.raises(BenchError, match="not understood"):
        requests._read(instance(tmp_path, "CPU:1 [LOST 12 EVENTS]\n"))


def test_nobody_waits_for_release_and_forget():
    counts = requests.Counts(LOOKUP=3, RELEASE=5, RELEASEDIR=1, FORGET=7, BATCH_FORGET=1, INIT=1)
    assert counts.waited_for == 3


def test_a_mount_without_fuse_has_no_requests():
    with requests.counting(None) as counts:
        pass
    assert counts.waited_for == 0
