"""Mount unions and their oracles for the time of a `with` block.

Every mount runs in a subprocess with a timeout and goes away when the block ends, whatever happened
in it: a test that fails must not leave a mount behind on which the next one, or the machine's
`find`, hangs.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.sessions import session_option

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

REPOSITORY = Path(__file__).resolve().parents[2]
TIMEOUT = 60.0  # seconds; a mount takes well under one, the rest is for a busy machine

REDIRECT_MAX = Path("/sys/module/overlay/parameters/redirect_max")
KERNEL_OPTIONS = "index=on,redirect_dir=on,metacopy=on,xino=off"
# In a user namespace overlayfs has neither redirects, metacopies nor the index.
ROOTLESS_KERNEL_OPTIONS = "userxattr,xino=off"


@dataclass(frozen=True)
class Layers:
    """The directories of one union, and the file its daemon logs to."""

    lowers: tuple[Path, ...]  # topmost first
    upper: Path
    work: Path
    mnt: Path
    log: Path

    @classmethod
    def create(cls, base: Path, n_lowers: int) -> Layers:
        """Make the directories of a union with `n_lowers` empty lowers under `base`."""
        layers = cls(
            lowers=tuple(base / f"lower{number}" for number in range(1, n_lowers + 1)),
            upper=base / "upper",
            work=base / "work",
            mnt=base / "mnt",
            log=base / "log",
        )
        for directory in (*layers.lowers, layers.upper, layers.work, layers.mnt):
            directory.mkdir(parents=True)
            directory.chmod(0o755)
        return layers


@contextlib.contextmanager
def public_directory() -> Iterator[Path]:
    """Yield a new temporary directory that every user may enter (pytest's tmp_path is 0700)."""
    path = Path(tempfile.mkdtemp(prefix="unionfuse-test."))
    path.chmod(0o755)
    try:
        yield path
    finally:
        # What a mount that would not go keeps busy stays; that failure has been reported by then.
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def union_mount(
    layers: Layers,
    *extra_args: str,
    env: Mapping[str, str] | None = None,
    read_only: bool = False,
    user: int | None = None,
) -> Iterator[Path]:
    """Serve `layers` with unionfuse and yield the mountpoint.

    Args:
        layers: What to mount, and where.
        extra_args: Further arguments of `unionfuse mount`.
        env: Environment variables of the daemon beside the inherited ones.
        read_only: Mount the lowers alone, without the upper.
        user: Run as this uid and gid, with no other groups.

    Raises:
        AssertionError: The mount or unmount failed, the daemon outlived its mount, or it logged an
        error.
    """
    # The log of an earlier mount of the same layers has been judged already.
    layers.log.unlink(missing_ok=True)
    lowers = ":".join(str(lower).replace(":", r"\:") for lower in layers.lowers)
    where = ["--read-only", lowers] if read_only else ["--workdir", str(layers.work), lowers]
    where += [str(layers.mnt)] if read_only else [str(layers.upper), str(layers.mnt)]
    arguments = ["mount", "--log", str(layers.log), *session_option(), *extra_args, *where]
    try:
        _unionfuse(arguments, env=env, user=user)
        yield layers.mnt
    finally:
        _unmount_union(layers, env=env, user=user)


@contextlib.contextmanager
def overlay_mount(layers: Layers, options: str = KERNEL_OPTIONS) -> Iterator[Path]:
    """Mount `layers` with the kernel's overlayfs and yield the mountpoint.

    Root lets it write redirects as long as unionfuse does, for this boot.
    """
    with contextlib.suppress(OSError):
        REDIRECT_MAX.write_text("3000")
    lowers = ":".join(str(lower).replace(":", r"\:") for lower in layers.lowers)
    directories = f"lowerdir={lowers},upperdir={layers.upper},workdir={layers.work}"
    given = f"{directories},{options}" if options else directories
    _run(["mount", "-t", "overlay", "overlay", "-o", given, str(layers.mnt)])
    try:
        yield layers.mnt
    finally:
        _unmount_oracle(layers.mnt)


@contextlib.contextmanager
def fuse_overlayfs_mount(layers: Layers) -> Iterator[Path]:
    """Mount `layers` with the fuse-overlayfs of this machine and yield the mountpoint."""
    lowers = ":".join(str(lower).replace(":", r"\:") for lower in layers.lowers)
    directories = f"lowerdir={lowers},upperdir={layers.upper},workdir={layers.work}"
    _run(["fuse-overlayfs", "-o", directories, str(layers.mnt)])
    try:
        yield layers.mnt
    finally:
        _unmount_oracle(layers.mnt)


def is_mounted(mountpoint: Path) -> bool:
    """Tell whether something is mounted there, without touching it: it may be dead, or hang."""
    mounts = Path("/proc/self/mountinfo").read_bytes().splitlines()
    return os.fsencode(mountpoint) in {line.split()[4] for line in mounts}


def daemon_pids(mountpoint: Path, word: bytes = b"mount") -> list[int]:
    """Return the processes that have `mountpoint` and `word` on their command line.

    That is that of `unionfuse mount`. A child of it is none: trio, when it is imported, runs
    ldconfig, and between vfork and exec that has the command line of its parent.
    """
    wanted = os.fsencode(mountpoint)
    parents = {}
    for process in Path("/proc").glob("[0-9]*"):
        # A process may end between the listing and the reading.
        with contextlib.suppress(OSError):
            arguments = (process / "cmdline").read_bytes().split(b"\0")
            if wanted in arguments and word in arguments:
                stat = (process / "stat").read_bytes()
                parents[int(process.name)] = int(stat.rpartition(b")")[2].split()[1])
    return [pid for pid, parent in parents.items() if parent not in parents]


def log_errors(log: Path) -> list[str]:
    """Return the lines of a daemon's log that no healthy daemon writes."""
    if not log.exists():
        return []
    lines = log.read_text(errors="backslashreplace").splitlines()
    return [line for line in lines if re.search(r"\bERROR\b|\bCRITICAL\b|Traceback", line)]


def _unmount_union(layers: Layers, *, env: Mapping[str, str] | None, user: int | None) -> None:
    daemons = daemon_pids(layers.mnt)
    failure: AssertionError | None = None
    if is_mounted(layers.mnt) or daemons:
        try:
            _unionfuse(["umount", str(layers.mnt)], env=env, user=user)
        except AssertionError as error:
            failure = error
            _force_unmount(layers.mnt)
    deadline = time.monotonic() + 5
    while (left := [pid for pid in daemons if _is_running(pid)]) and time.monotonic() < deadline:
        time.sleep(0.01)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    if failure:
        raise failure
    if left:
        raise AssertionError(f"the daemon of {layers.mnt} outlived its mount: pid {left}")
    if errors := log_errors(layers.log):
        shown = layers.log.read_text(errors="backslashreplace")[-4000:]
        raise AssertionError(f"the daemon logged errors: {errors}\n{shown}")


def _unionfuse(
    arguments: Sequence[str], *, env: Mapping[str, str] | None, user: int | None
) -> None:
    _run([sys.executable, "-m", "unionfuse", *arguments], env=env, user=user)


def _run(
    command: Sequence[str], *, env: Mapping[str, str] | None = None, user: int | None = None
) -> None:
    try:
        # Not captured through a pipe: a daemon that wrongly keeps its stderr would hold the pipe
        # open and this call would wait for it instead of failing.
        with tempfile.TemporaryFile() as output:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                timeout=TIMEOUT,
                check=False,
                cwd=REPOSITORY,
                env={**os.environ, **(env or {})},
                user=user,
                group=user,
                extra_groups=None if user is None else [],
            )
            output.seek(0)
            said = output.read().decode(errors="backslashreplace")
    except subprocess.TimeoutExpired as error:
        raise AssertionError(f"{' '.join(command)} took more than {TIMEOUT} s") from error
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(command)} exited with {done.returncode}: {said}")


def _unmount_oracle(mountpoint: Path) -> None:
    try:
        _run(["umount", str(mountpoint)])
    except AssertionError:
        _force_unmount(mountpoint)
        raise


def _force_unmount(mountpoint: Path) -> None:
    # -f aborts a FUSE connection, which frees the processes that wait in it; -l then takes the
    # mount away.
    for option in ("-f", "-l"):
        if is_mounted(mountpoint):
            with contextlib.suppress(AssertionError):
                _run(["umount", option, str(mountpoint)])


def _is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except OSError:
        return False
    return state != b"Z"
