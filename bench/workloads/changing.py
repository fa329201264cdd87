"""Changing what is there already, in the lowers and in the upper."""

from __future__ import annotations

import os
import sqlite3
import stat

from bench.tree import N_SMALL, N_SMALL_DIRS
from bench.workloads.base import WRITTEN_BACK, Context, Workload, command, expect
from bench.workloads.reading import check_small, read_small, small_files

N_APPENDED = 500
N_CHMOD_DIRS = 50  # of 100 files each
OTHER = 12_345  # the owner that chown gives
N_MOVED_DIRS = 20
N_RENAMED = 2_000
N_DIRECTORIES = 1_000
N_TRANSACTIONS = 100


def append(context: Context) -> None:
    for path in small_files(context.mnt)[:N_APPENDED]:
        fd = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.write(fd, b"x")
        os.close(fd)


def check_append(context: Context, _result: None) -> None:
    before = small_files(context.tree.merged)[:N_APPENDED]
    for old, new in zip(before, small_files(context.mnt), strict=False):
        with open(old, "rb") as one, open(new, "rb") as other:
            expect(f"{new} has what was appended", other.read() == one.read() + b"x", True)


def directories(number: int) -> list[str]:
    """Return the names of so many directories of small files."""
    return [f"small/d{name:02}" for name in range(number)]


def chmod(context: Context) -> None:
    command(context, "chmod", "-R", "go-rwx", *directories(N_CHMOD_DIRS))


def check_chmod(context: Context, _result: None) -> None:
    modes = {
        stat.S_IMODE(entry.stat().st_mode)
        for directory in directories(N_CHMOD_DIRS)
        for entry in (context.mnt / directory).iterdir()
    }
    expect("modes", modes, {0o600})
    check_small(context, read_small(context))


def chown(context: Context) -> None:
    command(context, "chown", "-R", f"{OTHER}:{OTHER}", *directories(N_CHMOD_DIRS))


def check_chown(context: Context, _result: None) -> None:
    owners = {
        (entry.stat().st_uid, entry.stat().st_gid)
        for directory in directories(N_CHMOD_DIRS)
        for entry in (context.mnt / directory).iterdir()
    }
    expect("owners", owners, {(OTHER, OTHER)})
    check_small(context, read_small(context))


def move(context: Context) -> None:
    for directory in directories(N_MOVED_DIRS):
        command(context, "mv", directory, "moved")


def make_moved(context: Context) -> None:
    (context.mnt / "moved").mkdir()


def check_move(context: Context, _result: None) -> None:
    moved = sum(len(names) for _, _, names in os.walk(context.mnt / "moved"))
    expect("files moved", moved, N_MOVED_DIRS * N_SMALL // N_SMALL_DIRS)
    left = len(os.listdir(context.mnt / "small"))
    expect("directories left", left, N_SMALL_DIRS - N_MOVED_DIRS)


def fill_upper(context: Context) -> None:
    (context.upper / "new").mkdir()
    for number in range(N_RENAMED):
        (context.upper / f"new/file{number}").write_text(f"{number}")


def rename(context: Context) -> None:
    for number in range(N_RENAMED):
        os.rename(f"{context.mnt}/new/file{number}", f"{context.mnt}/new/renamed{number}")


def check_rename(context: Context, _result: None) -> None:
    for number in range(N_RENAMED):
        path = context.mnt / f"new/renamed{number}"
        expect(str(path), path.read_text(), f"{number}")
    expect("names", len(os.listdir(context.mnt / "new")), N_RENAMED)


def make_new(context: Context) -> None:
    (context.mnt / "new").mkdir()


def mkdir_rmdir(context: Context) -> int:
    for number in range(N_DIRECTORIES):
        os.mkdir(f"{context.mnt}/new/dir{number}")
    made = len(os.listdir(context.mnt / "new"))
    for number in range(N_DIRECTORIES):
        os.rmdir(f"{context.mnt}/new/dir{number}")
    return made


def check_directories(context: Context, made: int) -> None:
    expect("directories made", made, N_DIRECTORIES)
    expect("directories left", os.listdir(context.mnt / "new"), [])


def transactions(context: Context) -> None:
    with sqlite3.connect(context.mnt / "new/data.db") as connection:
        connection.execute("CREATE TABLE t (number INTEGER, text TEXT)")
        for number in range(N_TRANSACTIONS):
            connection.executemany(
                "INSERT INTO t VALUES (?, ?)", [(number, f"row {row}" * 10) for row in range(10)]
            )
            connection.commit()
    connection.close()


def check_transactions(context: Context, _result: None) -> None:
    connection = sqlite3.connect(context.mnt / "new/data.db")
    expect("rows", connection.execute("SELECT count(*) FROM t").fetchone()[0], N_TRANSACTIONS * 10)
    expect("integrity", connection.execute("PRAGMA integrity_check").fetchone()[0], "ok")
    connection.close()


def check_transactions_upper(context: Context, _result: None) -> None:
    connection = sqlite3.connect(context.upper / "new/data.db")
    expect("integrity", connection.execute("PRAGMA integrity_check").fetchone()[0], "ok")
    connection.close()


WORKLOADS = (
    Workload(
        name="append",
        does="appends one byte to 500 small files of the lowers",
        run=append,
        verify=check_append,
        unsteady=WRITTEN_BACK,
        changes=("small",),
        quick=True,
    ),
    Workload(
        name="chmod",
        does="runs chmod -R over 5,000 files of the lowers",
        run=chmod,
        verify=check_chmod,
        limits=dict.fromkeys(("auto", "cached", "passthrough"), 5_600),
        in_requests=True,
        changes=("small",),
        needs=("chmod",),
    ),
    Workload(
        name="chown",
        does="runs chown -R over 5,000 files of the lowers (a container with a user namespace)",
        run=chown,
        verify=check_chown,
        in_requests=True,
        changes=("small",),
        needs=("chown",),
    ),
    Workload(
        name="mv-lower",
        does="moves 20 directories of the lowers, 100 files in each, each with an mv",
        prepare=make_moved,
        run=move,
        verify=check_move,
        limits=dict.fromkeys(("auto", "cached", "passthrough"), 200),
        in_requests=True,
        changes=("small",),
        needs=("mv",),
        quick=True,
    ),
    Workload(
        name="rename",
        does="renames 2,000 files of the upper",
        before_mount=fill_upper,
        run=rename,
        verify=check_rename,
    ),
    Workload(
        name="mkdir-rmdir",
        does="makes 1,000 directories and removes them",
        prepare=make_new,
        run=mkdir_rmdir,
        verify=check_directories,
    ),
    Workload(
        name="sqlite",
        does="commits 100 SQLite transactions, each on the disk before the next",
        prepare=make_new,
        run=transactions,
        verify=check_transactions,
        unsteady=WRITTEN_BACK,
        verify_upper=check_transactions_upper,
        quick=True,
    ),
)
