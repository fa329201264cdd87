"""The ways in which unionfuse serves a mount, each of which has to pass the same tests.

A test is told which one it is about by UNIONFUSE_TEST_SESSION and UNIONFUSE_TEST_IO, from which
every mount of the tests takes its options. Set by the user they choose the only one to test.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

CAP_SYS_ADMIN = 21


@dataclass(frozen=True)
class Session:
    """A value of `--session`, and of `--io` where that has a meaning."""

    session: str
    io: str | None = None

    @property
    def name(self) -> str:
        """How the ids of tests call it."""
        return f"{self.session}-{self.io}" if self.io else self.session

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables by which the mounts of a test are told."""
        io = {"UNIONFUSE_TEST_IO": self.io} if self.io else {}
        return {"UNIONFUSE_TEST_SESSION": self.session, **io}

    def lacking(self) -> str:
        """Say why this process cannot mount so, or nothing."""
        return _lacks_passthrough() if self.io == "passthrough" else ""


PYFUSE3 = Session("pyfuse3")
KERNEL_AUTO = Session("kernel", "auto")  # as it comes
KERNEL_CACHED = Session("kernel", "cached")
KERNEL_PASSTHROUGH = Session("kernel", "passthrough")

# Over which ones every test runs that mounts, and those about data beside them.
SESSIONS = (PYFUSE3, KERNEL_AUTO, KERNEL_PASSTHROUGH)
ALL_SESSIONS = (*SESSIONS, KERNEL_CACHED)
KERNEL_SESSIONS = tuple(session for session in ALL_SESSIONS if session.session == "kernel")


def held_views(session: Session | None, old: bytes, new: bytes) -> list[bytes]:
    """Return what a reader may see of a lower file that was changed after it was opened.

    Where data goes past the daemon it sees the old file, as on overlayfs, else the new one.
    """
    known = {
        PYFUSE3: [new],
        KERNEL_AUTO: [new],
        KERNEL_CACHED: [new],
        KERNEL_PASSTHROUGH: [old],
    }
    return known.get(session, [old, new]) if session else [old, new]


def chosen_session() -> Session | None:
    """Return the one that the environment names, or None."""
    session, io = (os.environ.get(f"UNIONFUSE_TEST_{name}") for name in ("SESSION", "IO"))
    if not session:
        return Session("auto", io) if io else None
    return Session(session, io or None)


def session_option() -> list[str]:
    """Return the options of `unionfuse mount` for the session that is under test."""
    session = chosen_session()
    if session is None:
        return []
    return ["--session", session.session, *(["--io", session.io] if session.io else [])]


def _lacks_passthrough() -> str:
    found = re.match(r"(\d+)\.(\d+)", os.uname().release)
    if not found or (int(found[1]), int(found[2])) < (6, 9):
        return "FUSE passthrough came with Linux 6.9"
    whole = Path("/proc/self/uid_map").read_text().split() == ["0", "0", str((1 << 32) - 1)]
    return "" if whole and _has_capability(CAP_SYS_ADMIN) else "only root has CAP_SYS_ADMIN"


def _has_capability(number: int) -> bool:
    status = Path("/proc/self/status").read_text()
    effective = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(effective.split()[1], 16) >> number & 1)
