"""What is freed goes back to the system."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

from unionfuse.syscalls.memory import trim

MIB = 1 << 20


def resident() -> int:
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line[:5] == "VmRSS") << 10


@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="this C library has no malloc_trim"
)
def test_freed_memory_below_what_is_in_use_is_given_back() -> None:
    blocks = [bytes(4000) for _ in range(32_000)]  # too large for Python's own allocator
    last = bytes(4000)
    before = resident()
    blocks.clear()
    trim()
    assert resident() < before - 64 * MIB
    assert len(last) == 4000
