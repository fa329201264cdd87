"""Seccomp filters as crun makes them of a profile, kept for the next container.

To make one takes a third of the time that crun needs for a container. It leaves the finished one
beside its own state, and takes one from an annotation. What is kept, in ROOT/seccomp, is used as
long as the crun, the profile and the kernel are those that it was made with.
"""

from __future__ import annotations

import binascii
import contextlib
import marshal
import os
from typing import TYPE_CHECKING, Any, NamedTuple

from unionfuse.container.seccomp import PROFILES
from unionfuse.container.state import write_whole

if TYPE_CHECKING:
    from pathlib import Path

    from unionfuse.container.runtime import Runtime

ANNOTATION = "run.oci.seccomp_bpf_data"  # crun(1); base64
_INSTRUCTION = 8  # bytes of a struct sock_filter
_NAME = "seccomp"  # below ROOT
_VERSION = 1  # of what is in the file, and of what `seccomp.adapt` makes


class Kept(NamedTuple):
    """A profile, and what has been made of it.

    Attributes:
        profile: of runtime-spec, as JSON.
        filter: in base64.
    """

    profile: bytes
    filter: str


def recall(root: Path, runtime: Runtime) -> Kept | None:
    """Return what was kept in the store at `root`; None if nothing is, or it is outdated."""
    try:
        key, profile, data = marshal.loads((root / _NAME).read_bytes())  # our own, in our store
    except (OSError, ValueError, EOFError, TypeError):
        return None
    if key != _key(runtime):
        return None
    return Kept(profile, binascii.b2a_base64(data, newline=False).decode())


def keep(root: Path, runtime: Runtime, container_id: str, profile: bytes) -> None:
    """Keep the filter that crun has just made of a profile; what can not be kept is not."""
    with contextlib.suppress(OSError):
        data = (runtime.root / container_id / "seccomp.bpf").read_bytes()
        if data and not len(data) % _INSTRUCTION:
            whole = marshal.dumps((_key(runtime), profile, data))
            write_whole(root / _NAME, whole, sync=False)


def _key(runtime: Runtime) -> list[Any]:
    system = os.uname()
    files = tuple(map(_identity, (runtime.path, *PROFILES)))
    return [_VERSION, system.release, system.machine, *files]


def _identity(path: str) -> tuple[str, int, int, int] | None:
    try:
        st = os.stat(path)
    except OSError:
        return None
    return os.path.realpath(path), st.st_ino, st.st_size, st.st_mtime_ns
