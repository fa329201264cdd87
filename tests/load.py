"""Load a union with stress-ng's filesystem stressors and with fio, which verify what they read.

What fails on the union is tried again on the filesystem itself and on the kernel's overlayfs: a
stressor that fails there too finds no fault of the union. An error in the daemon's log is one.

    python -m tests.load --seconds 600           so long over each way of data, one after another
    python -m tests.load --session kernel --io cached --only rename,fio-mmap
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.support.mounts import (
    Layers,
    log_errors,
    overlay_mount,
    public_directory,
    union_mount,
)
from tests.support.sessions import ALL_SESSIONS, Session

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# Those that work in --temp-path. Not among them: bind-mount, binderfs, eventfd, fanotify, ioprio,
# procfs, which work elsewhere; getdent, which lists the whole machine, other mounts too; io, whose
# sync(2) waits for all filesystems and holds up whoever else is on the machine; metamix and others
# that are newer than stress-ng 0.15 are tried where they are known.
STRESSORS = (
    "access", "acl", "aio", "aiol", "chattr", "chdir", "chmod", "chown", "copy-file", "dentry",
    "dir", "dirdeep", "dirmany", "dnotify", "dup", "fallocate", "fcntl", "fiemap", "file-ioctl",
    "filename", "flock", "fpunch", "fsize", "fstat", "handle", "hdd", "inode-flags",
    "inotify", "iomix", "lease", "link", "locka", "lockf", "lockofd", "metamix", "mknod", "mmap",
    "msync", "open", "readahead", "rename", "revio", "seek", "sendfile", "symlink", "sync-file",
    "touch", "unlink", "utime", "verity", "xattr",
)  # fmt: skip
OPTIONS = {"mmap": ["--mmap-file"]}
WORKERS = 2
LOWER_SIZE = "16m"
PATIENCE = 60.0  # seconds beyond its own that a job may take to end
# stress-ng's exit codes for what it cannot do here: no resources, not implemented
CANNOT = {3: "has no resources", 4: "is not implemented"}
SHOWN = 1500  # characters of what a job complained of


@dataclass(frozen=True)
class Job:
    """A load, as a command with DIRECTORY where it is to work, and SECONDS."""

    name: str
    command: tuple[str, ...]

    def on(self, directory: Path, seconds: int) -> list[str]:
        """Return the command for a directory."""
        given = {"DIRECTORY": str(directory), "SECONDS": f"{seconds}"}
        return [
            word.replace("DIRECTORY", given["DIRECTORY"]).replace("SECONDS", given["SECONDS"])
            for word in self.command
        ]


@dataclass(frozen=True)
class Outcome:
    """How a job ended."""

    code: int | None  # None: not at all
    said: str

    @property
    def failed(self) -> bool:
        return self.code != 0 and self.code not in CANNOT

    def __str__(self) -> str:
        if self.code is None:
            return "did not end"
        return CANNOT.get(self.code, "passed" if self.code == 0 else f"failed ({self.code})")


def jobs() -> list[Job]:
    """Return all of them."""
    known = subprocess.run(
        ["stress-ng", "--stressors"], capture_output=True, text=True, check=True
    ).stdout.split()
    stress = ["stress-ng", "--verify", "--temp-path", "DIRECTORY", "--timeout", "SECONDS"]
    found = [
        Job(name, (*stress, f"--{name}", f"{WORKERS}", *OPTIONS.get(name, ())))
        for name in STRESSORS
        if name in known
    ]
    return [*found, *_fio_jobs()]


def _fio(name: str, *options: str) -> Job:
    fixed = [
        "fio",
        "--directory=DIRECTORY",
        "--verify=crc32c",
        "--verify_fatal=1",
        "--randrepeat=1",
    ]
    size = f"--size={LOWER_SIZE}"
    return Job(name, (*fixed, size, "--minimal", *options))


def _fio_jobs() -> list[Job]:
    timed = ["--time_based=0", "--numjobs=2"]
    return [
        # what lay in the lower is there, before and after parts of it were written
        _fio("fio-lower-read", "--name=lower", "--numjobs=2", "--rw=read", "--bs=64k"),
        _fio("fio-lower-random", "--name=lower", *timed, "--rw=randwrite", "--bs=4k"),
        _fio("fio-mmap", "--name=mmap", *timed, "--rw=randwrite", "--bs=4k", "--ioengine=mmap"),
        _fio("fio-new", "--name=new", *timed, "--rw=write", "--bs=100k", "--bs_unaligned=1"),
        _fio("fio-random", "--name=random", *timed, "--rw=randrw", "--bsrange=512-128k"),
        _fio("fio-direct", "--name=direct", *timed, "--rw=randwrite", "--bs=4k", "--direct=1",
             "--ioengine=libaio", "--iodepth=8"),
        _fio("fio-sync", "--name=sync", *timed, "--rw=randwrite", "--bs=16k", "--fsync=16"),
        _fio("fio-append", "--name=append", *timed, "--rw=write", "--bs=8k", "--fdatasync=32"),
    ]  # fmt: skip


def lay_down(lower: Path) -> None:
    """Make the files that the jobs `lower` and `mmap` read and change."""
    for name in ("lower", "mmap"):
        job = _fio("lay", f"--name={name}", "--numjobs=2", "--rw=write", "--bs=64k")
        outcome = attempt(Job("lay", (*job.command, "--do_verify=0")), lower, 0)
        assert outcome.code == 0, f"fio cannot lay down its files: {outcome.said}"


def attempt(job: Job, directory: Path, seconds: int) -> Outcome:
    """Run a job in a directory."""
    with subprocess.Popen(
        job.on(directory, seconds),
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,  # its children end with it
    ) as process:
        try:
            said, _ = process.communicate(timeout=seconds + PATIENCE)
        except subprocess.TimeoutExpired:
            _end(process)
            return Outcome(None, "")
    return Outcome(process.returncode, said)


def _end(process: subprocess.Popen[str]) -> None:
    """End a job; stress-ng's workers are in groups of their own, which it ends when told."""
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.communicate(timeout=10)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)


def on_others(job: Job, seconds: int) -> str:
    """Run a job where no union of ours is; say where it does not pass."""
    found = []
    for system in ("the filesystem itself", "overlayfs"):
        with public_directory() as base:
            layers = Layers.create(base / "union", 1)
            bare = system != "overlayfs"
            lay_down(layers.upper if bare else layers.lowers[0])
            mount = contextlib.nullcontext(layers.upper) if bare else overlay_mount(layers)
            with mount as directory:
                outcome = attempt(job, directory, seconds)
            if outcome.code != 0:
                found.append(f"{outcome} on {system}")
    return ", ".join(found)


def load(session: Session, chosen: Sequence[Job], seconds: int) -> list[str]:
    """Run the jobs, each so long, on a union that `session` serves; return what is wrong."""
    os.environ.update(session.environment)
    wrong = []
    with public_directory() as base:
        layers = Layers.create(base / "union", 2)
        lay_down(layers.lowers[0])
        judged = 0
        with union_mount(layers) as mnt:
            for job in chosen:
                outcome = attempt(job, mnt, seconds)
                said = str(outcome)
                errors = log_errors(layers.log)
                if outcome.failed:
                    others = on_others(job, seconds)
                    said += f"; {others}" if others else f":\n{outcome.said[-SHOWN:]}"
                    if not others:
                        wrong.append(f"{session.name} {job.name}")
                if len(errors) > judged:
                    said += f"; the daemon logged {errors[judged:]}"
                    wrong.append(f"{session.name} {job.name}")
                    judged = len(errors)
                print(f"{session.name} {job.name}: {said}", flush=True)
    return wrong


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options = _parse(arguments)
    missing = [program for program in ("stress-ng", "fio") if shutil.which(program) is None]
    if missing:
        print(f"load: not installed: {' '.join(missing)}", file=sys.stderr)
        return 1
    names = options.only.split(",") if options.only else []
    chosen = [job for job in jobs() if not names or job.name in names]
    if unknown := set(names) - {job.name for job in chosen}:
        print(f"load: no such jobs: {' '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    sessions = [Session(options.session, options.io)] if options.session else list(ALL_SESSIONS)
    wrong: list[str] = []
    for session in sessions:
        if cause := session.lacking():
            print(f"{session.name}: {cause}")
            continue
        try:
            wrong += load(session, chosen, max(1, round(options.seconds / len(chosen))))
        except AssertionError as error:
            wrong.append(f"{session.name}: {error}")
    if wrong:
        print("wrong:", *wrong, sep="\n  ")
    return 1 if wrong else 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.load", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--seconds", type=float, default=60, help="for each way of data (60)")
    parser.add_argument("--session", help="as of unionfuse mount; all by default")
    parser.add_argument("--io", help="as of unionfuse mount")
    parser.add_argument("--only", help="jobs, with commas between")
    options = parser.parse_args(arguments)
    if options.io and not options.session:
        parser.error("--io needs a --session")
    return options


if __name__ == "__main__":
    sys.exit(main())
