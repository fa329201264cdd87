"""Looking at a tree and reading its files."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import xxhash

from bench.digest import tree_digest, walk
from bench.tree import N_SMALL, N_SMALL_DIRS
from bench.workloads import floors
from bench.workloads.base import (
    ENV,
    TIMEOUT,
    Context,
    Workload,
    command,
    expect,
    times,
    wanted,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

N_MISSING = 2_000


def small_files(root: Path) -> list[str]:
    """Return the paths of the small files, in the order in which they were made."""
    return [
        f"{root}/small/d{number % N_SMALL_DIRS:02}/file{number:04}" for number in range(N_SMALL)
    ]


def read_small(context: Context) -> list[bytes]:
    contents = []
    for path in small_files(context.mnt):
        fd = os.open(path, os.O_RDONLY)
        contents.append(os.read(fd, 1 << 16))
        os.close(fd)
    return contents


def digest_small(context: Context) -> str:
    return digest_of(read_small(context))


def digest_of(contents: list[bytes]) -> str:
    return xxhash.xxh3_64(b"".join(contents)).hexdigest()


def check_small(context: Context, contents: list[bytes]) -> None:
    expect("contents", digest_of(contents), wanted(digest_small, context.tree))


def find(context: Context) -> int:
    return command(context, "find", ".").count(b"\n")


def check_count(context: Context, found: int) -> None:
    expect("files found", found, context.tree.files + context.tree.directories + 1)


def lstat_all(context: Context) -> tuple[int, int]:
    """Walk the tree and lstat every name; return their number and the sum of their sizes."""
    number = size = 0
    pending = [str(context.mnt)]
    while pending:
        directory = pending.pop()
        with os.scandir(directory) as entries:
            found = [(entry.path, entry.is_dir(follow_symlinks=False)) for entry in entries]
        for path, is_directory in found:
            status = os.lstat(path)
            number += 1
            if is_directory:
                pending.append(path)
            else:
                size += status.st_size
    return number, size


def check_sizes(context: Context, found: tuple[int, int]) -> None:
    expect("names and bytes", found, wanted(lstat_all, context.tree))


def stat_missing(context: Context) -> int:
    missing = 0
    for number in range(N_MISSING):
        try:
            os.stat(f"{context.mnt}/small/d{number % N_SMALL_DIRS:02}/missing{number}")
        except FileNotFoundError:
            missing += 1
    return missing


def check_missing(_context: Context, missing: int) -> None:
    expect("names missing", missing, N_MISSING)


def tar(context: Context) -> int:
    """Write a tar to a pipe that is really read; return its length."""
    # GNU tar reads no data when it sees that its output is /dev/null.
    with subprocess.Popen(
        ["tar", "-cf", "-", "."], cwd=context.mnt, env=ENV, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        length = 0
        buffer = bytearray(1 << 16)
        while read := os.readv(process.stdout.fileno(), [buffer]):
            length += read
        expect("exit code of tar", process.wait(TIMEOUT), 0)
    return length


def check_tar(context: Context, length: int) -> None:
    expect("bytes of the tar", length, wanted(tar, context.tree))


def grep(context: Context) -> bytes:
    """Search all but the big file, which has no lines."""
    return command(context, "grep", "-rlF", "AF_INET6", "usr", "small")


def check_grep(context: Context, found: bytes) -> None:
    right = wanted(grep, context.tree)
    expect("files with a match", sorted(found.split()), sorted(right.split()))


READ_ALL = """
import os, sys
total = 0
for directory, _, names in os.walk(sys.argv[1]):
    for name in names:
        path = os.path.join(directory, name)
        if not os.path.islink(path):
            with open(path, "rb") as file:
                total += len(file.read())
print(total)
"""


def walkers(context: Context) -> list[int]:
    """Read all files of usr from two processes at the same time."""
    running = [
        subprocess.Popen(
            [sys.executable, "-ISc", READ_ALL, "usr"],
            cwd=context.mnt,
            env=ENV,
            stdout=subprocess.PIPE,
        )
        for _ in range(2)
    ]
    totals = [int(process.communicate(timeout=TIMEOUT)[0] or -1) for process in running]
    expect("exit codes", [process.returncode for process in running], [0, 0])
    return totals


def size_of_usr(context: Context) -> int:
    statuses = [status for _, status in walk(context.mnt / "usr")]
    return sum(status.st_size for status in statuses if stat.S_ISREG(status.st_mode))


def check_walkers(context: Context, totals: list[int]) -> None:
    size = wanted(size_of_usr, context.tree)
    expect("bytes read", totals, [size, size])


def check_everything(context: Context, digest: str) -> None:
    expect("digest of the tree", digest, context.tree.digest)


# A union that shows something else than it should has no time worth measuring.
EVERYTHING = Workload(
    name="everything",
    does="reads every name, mode and byte of the tree",
    reads_only=True,
    run=lambda context: tree_digest(context.mnt),
    verify=check_everything,
)


def reading(
    name: str,
    does: str,
    run: Callable[[Context], object],
    verify: Callable[..., None],
    *needs: str,
) -> Workload:
    """Return a workload that changes nothing."""
    return Workload(name=name, does=does, run=run, verify=verify, needs=needs, reads_only=True)


WORKLOADS = (
    *times(
        replace(
            reading("open-read", "opens, reads, closes 5,000 small files", read_small, check_small),
            quick=True,
        ),
        limits={"auto": 0, "cached": 0, "passthrough": 5_000},
        quick_cold=True,
    ),
    *times(
        replace(reading("find", "runs find over the tree", find, check_count, "find"), quick=True),
        limits={"auto": 0, "cached": 0, "passthrough": 0},
        floor=(floors.find, floors.find_again),
        quick_cold=True,
    ),
    *times(
        reading(
            "lstat", "lists a tree with sizes and times (ls -lR, rsync)", lstat_all, check_sizes
        ),
        limits={"auto": 0, "cached": 0, "passthrough": 0},
        floor=(floors.lstat, floors.nothing),
    ),
    *times(
        reading(
            "missing",
            "asks for 2,000 names that are not there (import paths, PATH, -I)",
            stat_missing,
            check_missing,
        ),
        limits={"auto": 0, "cached": 0, "passthrough": 0},
    ),
    *times(
        replace(reading("tar", "packs the tree with tar", tar, check_tar, "tar"), quick=True),
        limits={"auto": 0, "cached": 0, "passthrough": floors.N_REGULAR},  # one a file
        floor=(floors.tar, floors.tar_again),
        quick_cold=True,
    ),
    *times(
        replace(
            reading("grep", "runs grep -r over 11,800 files", grep, check_grep, "grep"), quick=True
        )
    ),
    *times(
        replace(
            reading(
                "walkers", "reads 6,800 files from two processes at once", walkers, check_walkers
            ),
            unsteady=frozenset({"auto", "pyfuse3", "cached", "passthrough"}),
        )
    ),
)
