"""Making and removing files, and changing those of the lowers."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from bench.digest import tree_digest
from bench.tree import N_USR
from bench.workloads import floors
from bench.workloads.base import TIMEOUT, WRITTEN_BACK, Context, Workload, command, expect

if TYPE_CHECKING:
    from pathlib import Path

N_CREATED = 2_000


def make_new(context: Context) -> None:
    (context.mnt / "new").mkdir()


def text_of(number: int) -> str:
    """Return what is written into the created file of this number."""
    return f"file number {number}\n" * 20


def create(context: Context) -> None:
    for number in range(N_CREATED):
        with open(f"{context.mnt}/new/file{number}", "w") as file:
            file.write(text_of(number))


def check_created(context: Context, _result: None) -> None:
    expect("files created", len(os.listdir(context.mnt / "new")), N_CREATED)


def check_created_upper(context: Context, _result: None) -> None:
    for number in range(N_CREATED):
        got = (context.upper / f"new/file{number}").read_text()
        expect(f"content of file{number}", got, text_of(number))


def untar(context: Context) -> None:
    command(context, "tar", "-xf", context.tree.usr_tar, "-C", context.mnt / "new")


def check_untar(context: Context, _result: None) -> None:
    expect("digest of new", tree_digest(context.mnt / "new"), context.tree.usr_digest)


def check_untar_upper(context: Context, _result: None) -> None:
    # fuse-overlayfs marks a new directory as opaque by a file in it.
    digest = tree_digest(context.upper / "new", ignore=".wh.")
    expect("digest of upper/new", digest, context.tree.usr_digest)


def rm_lower(context: Context) -> None:
    command(context, "rm", "-rf", "usr")


def check_rm_lower(context: Context, _result: None) -> None:
    expect("what is left", sorted(os.listdir(context.mnt)), ["big", "small"])


def fill_upper(context: Context) -> None:
    """Put the tree into the upper, where the mount will show it as `new`."""
    new = context.upper / "new"
    new.mkdir()
    subprocess.run(["tar", "-xf", context.tree.usr_tar, "-C", new], timeout=TIMEOUT, check=True)


def rm_upper(context: Context) -> None:
    command(context, "rm", "-rf", "new")


def check_rm_upper(context: Context, _result: None) -> None:
    expect("what is left", sorted(os.listdir(context.mnt)), ["big", "small", "usr"])


def check_gone_upper(context: Context, _result: None) -> None:
    left: list[Path] = list((context.upper / "new").glob("*"))
    expect("what is left in the upper", left, [])


WORKLOADS = (
    Workload(
        name="create",
        does="writes 2,000 new small files with Python's open()",
        prepare=make_new,
        run=create,
        verify=check_created,
        unsteady=WRITTEN_BACK,
        verify_upper=check_created_upper,
        limits={"cached": 10_010, "passthrough": 8_010},
        floor=floors.capabilities(10_010, 8_010, 2_000),
        in_requests=True,
        quick=True,
    ),
    Workload(
        name="untar",
        does=f"unpacks a tar of {N_USR:,} files",
        prepare=make_new,
        run=untar,
        verify=check_untar,
        unsteady=WRITTEN_BACK,
        verify_upper=check_untar_upper,
        limits={"cached": 62_000, "passthrough": 53_500},
        floor=floors.capabilities(62_000, 53_500, 2 * N_USR),
        needs=("tar",),
        in_requests=True,
        quick=True,
    ),
    Workload(
        name="rm-lower",
        does=f"removes a tree of {N_USR:,} files that is in the lowers",
        run=rm_lower,
        verify=check_rm_lower,
        changes=("usr",),
        limits={"cached": 29_000, "passthrough": 21_000},
        needs=("rm",),
        in_requests=True,
        quick=True,
    ),
    Workload(
        name="rm-upper",
        does=f"removes a tree of {N_USR:,} files that is in the upper",
        before_mount=fill_upper,
        run=rm_upper,
        verify=check_rm_upper,
        verify_upper=check_gone_upper,
        limits={"cached": 28_600, "passthrough": 20_600},
        needs=("rm",),
        in_requests=True,
    ),
)
