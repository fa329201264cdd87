"""Random operations on one file find nothing, over every way of data; and they find faults.

See tests/fsx.py for what they are, and for running more of them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import fsx
from tests.support.fsx_calls import PUNCH_HOLE, Calls
from tests.support.fsx_file import Difference
from tests.support.mounts import REPOSITORY

SEEDS = (1, 2, 3)
N_OPS = 500


@pytest.mark.fuse
@pytest.mark.data
@pytest.mark.slow
@pytest.mark.timeout(100)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_lower_file_is_what_its_model_is_after_every_operation(seed):
    # a process of its own, which may hang with what it has mapped
    command = [sys.executable, "-m", "tests.fsx", "--seed", f"{seed}", "--ops", f"{N_OPS}"]
    done = subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, timeout=85, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


# --- The test is tested ---------------------------------------------------------------------------


class LosesTheEndOfAWrite(Calls):
    def pwrite(self, fd, data, offset):
        super().pwrite(fd, data[:-1], offset)
        return len(data)


class AppendsWhereItOnceWas(Calls):
    def append(self, fd, data):
        with open(_path(fd), "r+b") as other:
            other.seek(max(os.fstat(fd).st_size - 1, 0))
            return other.write(data)


class BringsOldDataBack(Calls):
    """Truncation leaves what was behind the new end, where it grows again."""

    def truncate(self, file, size):
        old = _content(file)
        super().truncate(file, size)
        if size > len(old) > 0:
            with open(_path(file), "r+b") as other:
                other.seek(len(old))
                other.write(b"o")


class LosesWhatIsMapped(Calls):
    def map_write(self, mapping, begin, data):
        pass


class TellsHoles(Calls):
    """SEEK_DATA says that the file has no data."""

    def seek(self, fd, offset, whence):
        return super().seek(fd, 0, os.SEEK_END) if whence == os.SEEK_DATA else offset


class PunchesTooLittle(Calls):
    def fallocate(self, fd, mode, offset, length):
        super().fallocate(fd, mode, offset, length // 2 if mode & PUNCH_HOLE else length)


class CopiesFromElsewhere(Calls):
    def copy_file_range(self, source, target, size, at, to):
        return super().copy_file_range(source, target, size, at + 1, to)


class ReadsBehindTheCache(Calls):
    """A direct read misses the last page."""

    def pread_direct(self, fd, size, offset):
        return super().pread_direct(fd, size, offset)[:-1]


def _path(file):
    return Path(f"/proc/self/fd/{file}") if isinstance(file, int) else file


def _content(file):
    return _path(file).read_bytes() if os.access(_path(file), os.R_OK) else b""


@pytest.mark.parametrize("seed", SEEDS)
def test_the_filesystem_itself_is_what_the_model_is(seed):
    fsx.run(fsx.Round(seed, 2 * N_OPS), "bare")


@pytest.mark.parametrize(
    "fault",
    [
        LosesTheEndOfAWrite,
        AppendsWhereItOnceWas,
        BringsOldDataBack,
        LosesWhatIsMapped,
        TellsHoles,
        PunchesTooLittle,
        CopiesFromElsewhere,
        ReadsBehindTheCache,
    ],
)
def test_a_fault_is_found(fault):
    with pytest.raises(Difference, match=r"see it again: python -m tests\.fsx --seed 5 "):
        fsx.run(fsx.Round(5, 3 * N_OPS), "bare", fault())


def test_a_seed_does_the_same_again():
    described = []
    for _ in range(2):
        with pytest.raises(Difference) as found:
            fsx.run(fsx.Round(1, N_OPS), "bare", LosesTheEndOfAWrite())
        described.append(str(found.value))

    assert described[0] == described[1]
