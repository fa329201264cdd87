"""What `ps` shows of a process can be changed, within the room that there is."""

from __future__ import annotations

import subprocess
import sys

import pytest

SHOW = """
import sys
from unionfuse.syscalls import title
title.write({arguments})
sys.stdout.buffer.write(open("/proc/self/cmdline", "rb").read())
sys.stdout.buffer.write(open("/proc/self/comm", "rb").read())
"""


def shown(arguments: str, room: int) -> tuple[list[bytes], bytes]:
    """Return the arguments and the name that are shown of a process with `room` for more.

    Args:
        arguments: an expression: its text is itself an argument, for which there is room.
    """
    done = subprocess.run(
        [sys.executable, "-c", SHOW.format(arguments=arguments), " " * room],
        capture_output=True, timeout=30, check=True,
    )  # fmt: skip
    *parts, name = done.stdout.split(b"\0")
    return parts, name.strip()


def test_it_is_what_is_written() -> None:
    parts, name = shown("['/usr/bin/program', '-o', 'a=b']", room=100)
    assert b"\0".join(parts).rstrip(b"\0") == b"/usr/bin/program\0-o\0a=b"
    assert name == b"program"


@pytest.mark.parametrize("length", [2_000, 20_000])
def test_what_does_not_fit_is_cut_off(length: int) -> None:
    parts, _ = shown(f"['program', 'x' * {length}]", room=1)
    assert parts[0] == b"program"
    assert 0 < len(parts[1]) < length
    assert set(parts[1]) == {ord("x")}
