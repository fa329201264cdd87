"""What is compared: a directory without a union, the kernel's overlayfs, the FUSE ones.

A system mounts given lowers under a fresh upper and knows the process behind the mount. One that
is not there says how to get it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import BenchError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

REPOSITORY = Path(__file__).resolve().parents[1]
TIMEOUT = 60.0  # seconds; mounting takes well under one
CPU_CLOCK_SCHED = 2  # of the clock ids that clock_getcpuclockid(3) makes


@dataclass(frozen=True)
class Layers:
    """The directories of one mount."""

    lowers: tuple[Path, ...]  # topmost first
    upper: Path
    work: Path
    mnt: Path

    @property
    def base(self) -> Path:
        """The directory in which the command that mounts runs: where the topmost lower lies."""
        return self.lowers[0].parent

    @classmethod
    def fresh(cls, base: Path, lowers: Sequence[Path]) -> Layers:
        """Make an empty upper, workdir and mountpoint under `base`."""
        layers = cls(tuple(lowers), base / "upper", base / "work", base / "mnt")
        for directory in (layers.upper, layers.work, layers.mnt):
            directory.mkdir(parents=True)
        return layers


@dataclass(frozen=True)
class Mounted:
    """One mount while it stands."""

    mnt: Path
    pid: int | None = None  # of its daemon
    connection: int | None = None  # of FUSE

    def cpu_seconds(self) -> float:
        """Return what the daemon has used so far, all its threads, those that ended included."""
        if self.pid is None:
            return 0.0
        return time.clock_gettime((~self.pid << 3) | CPU_CLOCK_SCHED)

    def pss_kib(self) -> int:
        """Return the daemon's memory, shared pages in proportion."""
        if self.pid is None:
            return 0
        rollup = Path(f"/proc/{self.pid}/smaps_rollup").read_text()
        found = re.search(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE)
        return int(found[1]) if found else 0

    def abort(self) -> None:
        """Break the connection, so that whoever waits for an answer of a hung daemon goes on."""
        if self.connection is not None:
            control = Path(f"/sys/fs/fuse/connections/{self.connection}/abort")
            with contextlib.suppress(OSError):
                control.write_text("1")


@dataclass(frozen=True)
class System:
    """Something that can be mounted. This one is a plain directory: the floor."""

    name: str
    summary: str

    def missing(self) -> str | None:
        """Return how to install what is not there, or None."""
        return None

    def start(self, layers: Layers) -> None:
        """Mount `layers`; return when they are served.

        Raises:
            BenchError: They can not be mounted.
        """

    def stop(self, layers: Layers) -> None:
        """Unmount, and return when all that served the mount is gone.

        Raises:
            BenchError: It can not be unmounted; it has been detached then.
        """

    @contextlib.contextmanager
    def mounted(self, layers: Layers) -> Iterator[Mounted]:
        """Mount `layers` for the time of the block."""
        yield Mounted(layers.mnt)


@dataclass(frozen=True)
class _Mount(System):
    """A system that is mounted by a command."""

    program: str = "mount"
    install: str = ""
    options: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)

    def missing(self) -> str | None:
        return None if shutil.which(self.program) else self.install

    def command(self, layers: Layers) -> list[str]:
        """Return the command that mounts `layers`; it ends when the mount serves."""
        raise NotImplementedError

    def start(self, layers: Layers) -> None:
        with open(layers.mnt.parent / "mount.log", "wb+") as log:
            # Into a file: a daemon that keeps its stderr would hold a pipe open for ever.
            done = subprocess.run(
                self.command(layers),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                timeout=TIMEOUT,
                check=False,
                cwd=layers.base,
                env={**os.environ, **self.env},
            )
            log.seek(0)
            said = log.read().decode(errors="replace").strip()
        if done.returncode:
            raise BenchError(f"{self.name} does not mount: {said or done.returncode}")

    @contextlib.contextmanager
    def mounted(self, layers: Layers) -> Iterator[Mounted]:
        self.start(layers)
        try:
            yield self._look(layers.mnt)
        finally:
            self.stop(layers)

    def stop(self, layers: Layers) -> None:
        unmount(layers.mnt, daemon_pids(layers.mnt))

    def _look(self, mnt: Path) -> Mounted:
        return Mounted(mnt)


class Overlayfs(_Mount):
    """The kernel's own union."""

    def command(self, layers: Layers) -> list[str]:
        return [
            "mount", "-t", "overlay", "overlay", "-o",
            ",".join((overlay_options(layers), *self.options)), str(layers.mnt),
        ]  # fmt: skip


class _Fuse(_Mount):
    """A union with a daemon."""

    def missing(self) -> str | None:
        if not os.path.exists("/dev/fuse"):
            return "/dev/fuse is not there: modprobe fuse"
        return super().missing()

    def _look(self, mnt: Path) -> Mounted:
        # What mounted may still be ending beside what serves.
        deadline = time.monotonic() + 5
        while len(pids := daemon_pids(mnt)) != 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        if len(pids) != 1:
            raise BenchError(f"which process serves {mnt}? {pids or 'none'}")
        return Mounted(mnt, pid=pids[0], connection=os.minor(os.stat(mnt).st_dev))


class FuseOverlayfs(_Fuse):
    """fuse-overlayfs, or anything with its command line."""

    def command(self, layers: Layers) -> list[str]:
        return [self.program, "-o", overlay_options(layers), str(layers.mnt)]


class Unionfuse(_Fuse):
    """The unionfuse of this repository."""

    def command(self, layers: Layers) -> list[str]:
        lowers = ":".join(str(lower).replace(":", r"\:") for lower in layers.lowers)
        return [
            sys.executable, "-m", "unionfuse", "mount", *self.options,
            "--workdir", str(layers.work), lowers, str(layers.upper), str(layers.mnt),
        ]  # fmt: skip


def overlay_options(layers: Layers) -> str:
    """Return the mount options that overlayfs and fuse-overlayfs take, in `layers.base`.

    They must fit into a page, so that the paths of many layers have to be short.
    """
    lowers = ":".join(
        os.path.relpath(lower, layers.base).replace(":", r"\:") for lower in layers.lowers
    )
    return f"lowerdir={lowers},upperdir={layers.upper},workdir={layers.work}"


def _unionfuse(name: str, summary: str, *options: str) -> Unionfuse:
    return Unionfuse(
        name,
        summary,
        program=sys.executable,
        options=options,
        env={"PYTHONPATH": str(REPOSITORY)},
    )


def fuse_overlayfs(program: str = "fuse-overlayfs", name: str = "fuse-overlayfs") -> System:
    """Return the system of one fuse-overlayfs program."""
    return FuseOverlayfs(
        name,
        f"{program}, its defaults",
        program=program,
        install="apt install fuse-overlayfs" if "/" not in program else f"{program} is not there",
    )


BARE = System("bare", "a directory, no union: the floor")
OVERLAYFS = Overlayfs("overlayfs", "the kernel's union, its defaults", install="apt install mount")
PEER = fuse_overlayfs()
SYSTEMS: tuple[System, ...] = (
    BARE,
    OVERLAYFS,
    PEER,
    _unionfuse("auto", "unionfuse, its defaults"),
    _unionfuse("pyfuse3", "unionfuse --session pyfuse3", "--session", "pyfuse3"),
    _unionfuse(
        "cached", "unionfuse --session kernel --io cached", "--session", "kernel", "--io", "cached"
    ),
    _unionfuse(
        "passthrough",
        "unionfuse --session kernel --io passthrough",
        *("--session", "kernel", "--io", "passthrough"),
    ),
)


def clear(base: Path) -> None:
    """Remove what a run that was killed has left in `base`, its mount first."""
    mounts = Path("/proc/self/mountinfo").read_bytes().splitlines()
    if os.fsencode(base / "mnt") in {line.split()[4] for line in mounts}:
        subprocess.run(["umount", "-l", str(base / "mnt")], timeout=TIMEOUT, check=True)
    if base.exists():
        shutil.rmtree(base)


def daemon_pids(mountpoint: Path) -> list[int]:
    """Return the processes that have `mountpoint` on their command line."""
    wanted = os.fsencode(mountpoint)
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        # A process may end between the listing and the reading.
        with contextlib.suppress(OSError):
            if wanted in (process / "cmdline").read_bytes().split(b"\0"):
                found.append(int(process.name))
    return found


def unmount(mnt: Path, pids: Sequence[int]) -> None:
    """Unmount `mnt` and wait until its daemon is gone.

    Raises:
        BenchError: it can not be unmounted; it has been detached then.
    """
    said = b""
    for _ in range(50):  # somebody's lookup in it may end a moment later
        done = subprocess.run(
            ["umount", str(mnt)], capture_output=True, timeout=TIMEOUT, check=False
        )
        if not done.returncode:
            break
        said = done.stderr
        time.sleep(0.1)
    else:
        subprocess.run(["umount", "-l", str(mnt)], timeout=TIMEOUT, check=False)
        raise BenchError(f"{mnt} can not be unmounted: {said.decode(errors='replace').strip()}")
    deadline = time.monotonic() + TIMEOUT
    while left := [pid for pid in pids if _is_running(pid)]:
        if time.monotonic() > deadline:
            raise BenchError(f"the daemon of {mnt} outlived its mount: pid {left}")
        time.sleep(0.005)


def _is_running(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    return status.rpartition(b")")[2].split()[0] != b"Z"
