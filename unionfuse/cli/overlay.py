"""`unionfuse-overlay`: ask a fork server to do it, else do it here.

A container engine waits for this at every start of a container, so nothing is loaded here that is
not needed to ask.
"""

from __future__ import annotations

import gc
import os
import sys

_CONTAINERD = frozenset({"containerd", "containerd-shim-runc-v2", "ctr", "nerdctl", "k3s"})
_ENGINES = frozenset({"podman", "buildah", "crio"}) | _CONTAINERD
_SHELLS = frozenset(
    {"bash", "busybox", "dash", "sh"}
)  # in which mount.fuse3 runs us for containerd
# Another process has other files, and stays behind when this one is interrupted.
_OWN_FILES = ("/proc/self/", "/proc/thread-self/", "/dev/fd/")
_FOREGROUND = ("-f", "--foreground", "-d", "--debug")


def main() -> None:
    """Run the command line and exit."""
    gc.disable()  # what imports make is no garbage; the daemon enables it again
    argv = sys.argv[1:]
    status = _run_for_engine(argv) if _is_called_by_engine() else _run_here(argv)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # whoever called waits: to take the modules down first takes 10 ms


def _is_called_by_engine() -> bool:
    parent = os.getppid()
    try:
        name = _program_of(parent)
        return name in _ENGINES or (
            name in _SHELLS and _program_of(_parent_of(parent)) in _CONTAINERD
        )
    except OSError:
        return False


def _program_of(pid: int) -> str:
    return os.path.basename(os.readlink(f"/proc/{pid}/exe"))


def _parent_of(pid: int) -> int:
    with open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[1])


def _run_for_engine(argv: list[str]) -> int:
    from unionfuse.cli.forkserver import client

    status = None
    if not any(map(_needs_this_process, argv)):
        status = client.run("overlay", argv)
    return _run_here(argv, by_engine=True) if status is None else status


def _needs_this_process(argument: str) -> bool:
    return argument in _FOREGROUND or any(own in argument for own in (*_OWN_FILES, "debug"))


def _run_here(argv: list[str], *, by_engine: bool = False) -> int:
    from unionfuse.cli import overlay_cmd

    return overlay_cmd.run(argv, by_engine=by_engine)
