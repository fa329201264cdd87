"""What is compared: a directory without a union, the kernel's overlayfs, the FUSE ones.

A system mounts given lowers under a fresh upper and knows the process behind the mount. One that
is not there says how to get it.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from bench.daemons import TIMEOUT, daemon_pids, unmount
from bench.errors import BenchError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

REPOSITORY = Path(__file__).resolve().parents[1]
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
    # It is no union in which lower files can be changed: only what reads is run on it.
    reads_only: bool = False
    # It knows the whiteouts of overlayfs. One that does not gets the same layers without them.
    whiteouts: bool = True

    @property
    def is_union(self) -> bool:
        """Whether it shows layers; what does not is filled by hand."""
        return False

    @property
    def ours(self) -> bool:
        """Whether it is made of this repository: what fails on it is our error."""
        return False

    @property
    def has_daemon(self) -> bool:
        """Whether the kernel sends requests to a process."""
        return False

    def version(self) -> str:
        """Return the version of what is measured."""
        return f"Linux {platform.release()}"

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

    def look(self, mnt: Path) -> Mounted:
        """Return what serves the mount that stands at `mnt`.

        Raises:
            BenchError: There is no such process, or more than one.
        """
        return Mounted(mnt)

    @contextlib.contextmanager
    def mounted(self, layers: Layers) -> Iterator[Mounted]:
        """Mount `layers` for the time of the block."""
        self.start(layers)
        try:
            yield self.look(layers.mnt)
        finally:
            self.stop(layers)


@dataclass(frozen=True)
class _Mount(System):
    """A system that is mounted by a command."""

    program: str = "mount"
    install: str = ""
    options: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)

    @property
    def is_union(self) -> bool:
        return True

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

    def stop(self, layers: Layers) -> None:
        unmount(layers.mnt, daemon_pids(layers.mnt))


class Overlayfs(_Mount):
    """The kernel's own union."""

    def command(self, layers: Layers) -> list[str]:
        return [
            "mount", "-t", "overlay", "overlay", "-o",
            ",".join((overlay_options(layers), *self.options)), str(layers.mnt),
        ]  # fmt: skip


class _Fuse(_Mount):
    """A union with a daemon."""

    @property
    def has_daemon(self) -> bool:
        return True

    def version(self) -> str:
        done = subprocess.run(
            [self.program, "--version"],
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        # Their libraries say their versions too.
        own = re.search(r"(?:fs|-fuse):? version:? (\d\S*)", done.stdout + done.stderr)
        return own[1] if own else "unknown"

    def missing(self) -> str | None:
        if not os.path.exists("/dev/fuse"):
            return "/dev/fuse is not there: modprobe fuse"
        return super().missing()

    def look(self, mnt: Path) -> Mounted:
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


class UnionfsFuse(_Fuse):
    """unionfs-fuse."""

    def command(self, layers: Layers) -> list[str]:
        options = ",".join(("cow,hide_meta_files,allow_other,use_ino", *self.options))
        return [self.program, "-o", options, branches(layers), str(layers.mnt)]


class Mergerfs(_Fuse):
    """mergerfs: the first branch that has a name shows it; it copies nothing up."""

    def command(self, layers: Layers) -> list[str]:
        options = ",".join(("category.create=ff,allow_other", *self.options))
        return [self.program, "-o", options, branches(layers), str(layers.mnt)]


class Unionfuse(_Fuse):
    """The unionfuse of this repository."""

    @property
    def ours(self) -> bool:
        return True

    def version(self) -> str:
        return metadata.version("unionfuse")

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


def branches(layers: Layers) -> str:
    """Return the branches as unionfs-fuse and mergerfs take them, in `layers.base`."""
    lowers = (f"{os.path.relpath(lower, layers.base)}=RO" for lower in layers.lowers)
    return ":".join((f"{layers.upper}=RW", *lowers))


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
    # What the figures are published with has no path of this machine in it.
    return FuseOverlayfs(
        name,
        f"{Path(program).name}, its defaults",
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
    UnionfsFuse(
        "unionfs-fuse",
        "unionfs-fuse -o cow, its defaults",
        whiteouts=False,
        program="unionfs",
        install="apt install unionfs-fuse",
    ),
    Mergerfs(
        "mergerfs",
        "mergerfs, its defaults: no copy-up, so only what reads",
        reads_only=True,
        whiteouts=False,
        program="mergerfs",
        install="apt install mergerfs",
    ),
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
