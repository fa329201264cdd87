"""Much data in one file."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

from bench.digest import file_digest
from bench.tree import BIG_MIB, big_block
from bench.workloads.base import WRITTEN_BACK, Context, Workload, command, expect, wanted

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20
PAGE = 4096
N_RANDOM = 5_000
RANDOM_MIB = 64
FIO_MIB = 64


def write_big(context: Context) -> None:
    block = big_block(0)
    fd = os.open(context.mnt / "written", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    for number in range(BIG_MIB):
        os.writev(fd, [number.to_bytes(8, "big"), memoryview(block)[8:]])
    os.close(fd)


def check_big(context: Context, _result: None) -> None:
    expect("size", os.stat(context.mnt / "written").st_size, BIG_MIB * MIB)


def check_big_upper(context: Context, _result: None) -> None:
    wanted = file_digest(context.tree.merged / "big")
    expect("digest of the file in the upper", file_digest(context.upper / "written"), wanted)


def read_big(context: Context) -> list[bytes]:
    """Read the file; return the first bytes of each MiB, which differ."""
    heads = []
    buffer = bytearray(MIB)
    fd = os.open(context.mnt / "big", os.O_RDONLY)
    while os.readv(fd, [buffer]) == MIB:
        heads.append(bytes(buffer[:16]))
    os.close(fd)
    return heads


def check_heads(_context: Context, heads: list[bytes]) -> None:
    expect("data", heads, [big_block(number)[:16] for number in range(BIG_MIB)])


def read_random(context: Context) -> list[bytes]:
    fd = os.open(context.mnt / "big", os.O_RDONLY)
    pages = [os.pread(fd, PAGE, offset) for offset in random_offsets(N_RANDOM, BIG_MIB * MIB)]
    os.close(fd)
    return pages


def check_pages(context: Context, pages: list[bytes]) -> None:
    expect("pages are right", pages == wanted(read_random, context.tree), True)


def append_big(context: Context) -> None:
    fd = os.open(context.mnt / "big", os.O_WRONLY | os.O_APPEND)
    os.write(fd, b"x")
    os.close(fd)


def check_appended(context: Context, _result: None) -> None:
    path = context.mnt / "big"
    expect("size", os.stat(path).st_size, BIG_MIB * MIB + 1)
    check_heads(context, read_big(context))


def random_offsets(number: int, size: int) -> list[int]:
    """Return that many page-aligned offsets, always the same."""
    source = random.Random(3)
    return [source.randrange(size // PAGE) * PAGE for _ in range(number)]


def make_random_file(context: Context) -> None:
    with open(context.upper / "random", "wb") as file:
        file.writelines(big_block(number) for number in range(RANDOM_MIB))


def page_of(number: int) -> bytes:
    """Return what the random write of this number writes."""
    return number.to_bytes(8, "big") * (PAGE // 8)


def write_random(context: Context) -> None:
    fd = os.open(context.mnt / "random", os.O_RDWR)
    for number, offset in enumerate(random_offsets(N_RANDOM, RANDOM_MIB * MIB)):
        os.pwrite(fd, page_of(number), offset)
    os.close(fd)


def _check_random(path: Path) -> None:
    wanted = bytearray().join(big_block(number) for number in range(RANDOM_MIB))
    for number, offset in enumerate(random_offsets(N_RANDOM, RANDOM_MIB * MIB)):
        wanted[offset : offset + PAGE] = page_of(number)
    expect(f"{path} has what was written", path.read_bytes() == wanted, True)


def check_random(context: Context, _result: None) -> None:
    _check_random(context.mnt / "random")


def check_random_upper(context: Context, _result: None) -> None:
    _check_random(context.upper / "random")


def make_new(context: Context) -> None:
    (context.mnt / "new").mkdir()


def fio(context: Context, how: str, block: str) -> None:
    """Let fio write and read a file of 64 MiB, and check each block by its checksum."""
    command(
        context,
        "fio",
        "--name=bench",
        "--filename=new/fio",
        f"--rw={how}",
        f"--bs={block}",
        f"--size={FIO_MIB}m",
        "--ioengine=psync",
        "--thread",
        "--randseed=7",
        "--verify=crc32c",
        "--verify_fatal=1",
        "--do_verify=1",
        "--verify_state_save=0",
        "--end_fsync=1",
    )


def check_fio(context: Context, _result: None) -> None:
    expect("size", os.stat(context.mnt / "new/fio").st_size, FIO_MIB * MIB)


WORKLOADS = (
    Workload(
        name="write-big",
        does="writes a file of 256 MiB, a MiB at a time",
        run=write_big,
        verify=check_big,
        unsteady=WRITTEN_BACK,
        verify_upper=check_big_upper,
        limits={"cached": 280, "passthrough": 6},
        in_requests=True,
    ),
    Workload(
        name="write-random",
        does="writes 5,000 pages all over a file of 64 MiB (a database, a disk image)",
        before_mount=make_random_file,
        run=write_random,
        verify=check_random,
        unsteady=WRITTEN_BACK,
        quick=True,
        verify_upper=check_random_upper,
        limits={"cached": 3_200, "passthrough": 3},
        in_requests=True,
    ),
    Workload(
        name="read-big-again",
        does="reads a file of 256 MiB, a MiB at a time, for the second time",
        run=read_big,
        reads_only=True,
        verify=check_heads,
        warm=1,
    ),
    Workload(
        name="read-random",
        does="reads 5,000 pages all over a file of 256 MiB, on a fresh mount",
        run=read_random,
        reads_only=True,
        verify=check_pages,
    ),
    Workload(
        name="append-big",
        does="appends one byte to a file of 256 MiB in a lower",
        run=append_big,
        verify=check_appended,
        unsteady=WRITTEN_BACK,
        changes=("big",),
    ),
    Workload(
        name="read-big",
        does="reads a file of 256 MiB, a MiB at a time, on a fresh mount",
        run=read_big,
        reads_only=True,
        verify=check_heads,
        quick=True,
        limits={"cached": 2_060, "passthrough": 2},
        in_requests=True,
    ),
    Workload(
        name="fio-sequential",
        does="lets fio write 64 MiB in blocks of 128 KiB and verify them",
        prepare=make_new,
        run=lambda context: fio(context, "write", "128k"),
        verify=check_fio,
        unsteady=WRITTEN_BACK,
        needs=("fio",),
    ),
    Workload(
        name="fio-random",
        does="lets fio write 64 MiB in blocks of 4 KiB in random order and verify them",
        prepare=make_new,
        run=lambda context: fio(context, "randwrite", "4k"),
        verify=check_fio,
        unsteady=WRITTEN_BACK,
        needs=("fio",),
    ),
)
