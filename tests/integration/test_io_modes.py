"""However data goes, a file is the same file, and every way to open and to change it works."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import shutil
import stat
import subprocess
import sys
import threading

import pytest

from tests.support.commands import open_descriptors, statistics
from tests.support.files import opened, write
from tests.support.mounts import Layers, daemon_pids, overlay_mount, union_mount
from tests.support.programs import run, served
from tests.support.sessions import (
    KERNEL_PASSTHROUGH,
    KERNEL_SESSIONS,
    PYFUSE3,
)
from tests.support.stress_shared import sequence_of, stamped
from tests.support.users import NOBODY, acting_as

pytestmark = [pytest.mark.fuse, pytest.mark.timeout(60), pytest.mark.data]

MIB = 1 << 20
SIZE = 20_000
OLD, NEW = stamped(1, SIZE), stamped(2, SIZE)


# --- Data -----------------------------------------------------------------------------------------


@pytest.mark.sessions(KERNEL_PASSTHROUGH)
class TestPastTheDaemon:
    SIZE = 256 * MIB

    @pytest.mark.parametrize("place", ["lower", "upper"])
    def test_data_that_is_read_makes_no_request(self, layers, place):
        base = layers.lowers[0] if place == "lower" else layers.upper
        block = os.urandom(MIB)
        with open(base / "file", "wb") as file:
            file.writelines(block for _ in range(self.SIZE // MIB))
        with served(layers) as mnt:
            with open(mnt / "file", "rb", buffering=0) as file:
                for _ in range(self.SIZE // MIB):
                    assert file.read(MIB) == block
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapping:
                    assert mapping[-MIB:] == block
            assert "read" not in statistics(layers)[1]

    def test_data_that_is_written_makes_no_request(self, layers):
        (layers.lowers[0] / "lower").write_bytes(b"x" * MIB)
        block = os.urandom(MIB)
        with served(layers) as mnt:
            for name in ("lower", "new"):
                with open(mnt / name, "wb", buffering=0) as file:
                    file.writelines(block for _ in range(16))
                with opened(mnt / name, os.O_RDWR) as fd, mmap.mmap(fd, 0) as mapping:
                    mapping[MIB : MIB + 4] = b"text"
            requests = statistics(layers)[1]
            assert "write" not in requests
            assert "read" not in requests
        for name in ("lower", "new"):
            assert (layers.upper / name).read_bytes() == (block + b"text" + block[4:] + block * 14)


class TestManyAtOnce:
    def test_threads_open_one_file_at_the_same_time(self, layers):
        count = 40
        for number in range(count):
            (layers.lowers[0] / f"{number}").write_bytes(OLD)
        with served(layers) as mnt:
            failures: list[object] = []
            barrier = threading.Barrier(8)

            def use(writes: bool) -> None:
                for number in range(count):
                    barrier.wait(20)
                    try:
                        with opened(mnt / f"{number}", os.O_RDWR if writes else 0) as fd:
                            if writes:
                                os.pwrite(fd, NEW, 0)
                            data = os.pread(fd, 2 * SIZE, 0)
                            if len(data) != SIZE or b"\0" in data:
                                failures.append((number, data[:50]))
                    except OSError as error:
                        failures.append((number, error))

            threads = [threading.Thread(target=use, args=(which < 3,)) for which in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(50)
            assert failures == []
            for number in range(count):
                assert (mnt / f"{number}").read_bytes() == NEW

    STORM = """
import mmap, os, sys, time
from tests.support.stress_shared import sequence_of, stamped
path, index, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
deadline, number = time.monotonic() + seconds, 0
while time.monotonic() < deadline:
    number += 1
    if index == 0:
        fd = os.open(path, os.O_RDWR)
        # one page, which a reader sees as a whole
        os.pwrite(fd, stamped(number, 4080), 0)
    else:
        fd = os.open(path, os.O_RDONLY)
        if number % 5 == 0:
            with mmap.mmap(fd, 4080, access=mmap.ACCESS_READ) as mapping:
                data = mapping[:]
        else:
            data = os.pread(fd, 4080, 0)
        assert len(data) == 4080 and b"\\0" not in data, (number, data[:50])
    os.close(fd)
print(number)
"""

    def test_eight_processes_open_and_close_a_file_that_one_writes(self, layers):
        (layers.lowers[0] / "file").write_bytes(stamped(1, 4080))
        with served(layers) as mnt:
            # all begin with the lower file
            with opened(mnt / "file"):
                command = [sys.executable, "-c", self.STORM, str(mnt / "file")]
                processes = [
                    subprocess.Popen(
                        [*command, str(index), "3"],
                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                    )
                    for index in range(8)
                ]  # fmt: skip
                ends = [(*process.communicate(timeout=40), process) for process in processes]
            for _, complaint, process in ends:
                assert process.returncode == 0, complaint
            last = int(ends[0][0])
            assert sequence_of((mnt / "file").read_bytes(), "file") == last
            [pid] = daemon_pids(mnt)
            assert open_descriptors(pid) < 200


class TestStackedLayers:
    """What lies on a union itself can not be handed to the kernel: it goes through the daemon."""

    @pytest.mark.root
    @pytest.mark.parametrize("kind", ["overlayfs", "unionfuse"])
    def test_a_lower_on_a_union(self, layers, kind):
        inner = Layers.create(layers.mnt.with_name("inner"), 2)
        (inner.lowers[0] / "file").write_bytes(OLD)
        (inner.lowers[1] / "other").write_bytes(OLD)
        mount = overlay_mount(inner) if kind == "overlayfs" else union_mount(inner)
        with mount as below:
            outer = Layers((below,), layers.upper, layers.work, layers.mnt, layers.log)
            with union_mount(outer) as mnt, opened(mnt / "file") as reader:
                assert os.pread(reader, 2 * SIZE, 0) == OLD
                assert (mnt / "other").read_bytes() == OLD
                write(mnt / "file", NEW)
                assert (mnt / "file").read_bytes() == NEW
                assert os.pread(reader, 2 * SIZE, 0) in (OLD, NEW)
                with opened(mnt / "other", os.O_RDWR) as both:
                    os.pwrite(both, NEW, 0)
                    assert os.pread(both, 2 * SIZE, 0) == NEW
                (mnt / "new").write_bytes(NEW)
                assert (mnt / "new").read_bytes() == NEW
                assert (below / "file").read_bytes() == OLD


# --- Ways to open and to change -------------------------------------------------------------------


class TestWaysToOpen:
    @pytest.mark.parametrize("place", ["lower", "upper"])
    def test_direct_reads_and_writes(self, layers, place):
        base = layers.lowers[0] if place == "lower" else layers.upper
        (base / "file").write_bytes(b"a" * 8192)
        with served(layers) as mnt, mmap.mmap(-1, 4096) as page:  # aligned
            with opened(mnt / "file", os.O_RDONLY | os.O_DIRECT) as fd:
                assert os.preadv(fd, [page], 4096) == 4096
                assert page[:] == b"a" * 4096
            page[:] = b"b" * 4096
            with opened(mnt / "file", os.O_RDWR | os.O_DIRECT) as fd:
                assert os.pwritev(fd, [page], 4096) == 4096
                with opened(mnt / "file") as reader:
                    assert os.pread(reader, 9000, 0) == b"a" * 4096 + b"b" * 4096
            write(mnt / "file", b"c")
            assert (mnt / "file").read_bytes() == b"c" + b"a" * 4095 + b"b" * 4096

    @pytest.mark.parametrize("place", ["lower", "upper"])
    def test_two_descriptors_append_in_turn(self, layers, place):
        base = layers.lowers[0] if place == "lower" else layers.upper
        (base / "file").write_bytes(b"0")
        append = os.O_WRONLY | os.O_APPEND
        with served(layers) as mnt:
            with opened(mnt / "file", append) as one, opened(mnt / "file", append) as two:
                for number in range(1, 10):
                    os.write(one if number % 2 else two, b"%d" % number)
                    assert (mnt / "file").stat().st_size == number + 1
            assert (mnt / "file").read_bytes() == b"0123456789"

    def test_a_new_file_is_written_by_one_that_may_not_open_it_again(self, layers):
        with served(layers) as mnt:
            flags = os.O_CREAT | os.O_EXCL | os.O_RDWR
            fd = os.open(mnt / "file", flags, 0)
            try:
                os.write(fd, OLD)
                assert os.pread(fd, 2 * SIZE, 0) == OLD
            finally:
                os.close(fd)
            assert (mnt / "file").stat().st_mode == stat.S_IFREG

    # the library behind the other session has none of these requests
    @pytest.mark.sessions(*KERNEL_SESSIONS)
    @pytest.mark.parametrize("place", ["lower", "upper"])
    def test_room_is_taken_and_given_back(self, layers, place):
        base = layers.lowers[0] if place == "lower" else layers.upper
        (base / "file").write_bytes(b"a" * 65536)
        with served(layers) as mnt:
            for options in ([], ["--keep-size"]):
                run("fallocate", *options, "--offset", "65536", "--length", "65536", mnt / "file")
            assert (mnt / "file").stat().st_size == 131_072
            assert (mnt / "file").stat().st_blocks * 512 >= 131_072
            run("fallocate", "--punch-hole", "--offset", "4096", "--length", "8192", mnt / "file")
            content = (mnt / "file").read_bytes()
            assert content == b"a" * 4096 + bytes(8192) + b"a" * 53248 + bytes(65536)
            with opened(mnt / "file") as fd:
                assert os.lseek(fd, 0, os.SEEK_HOLE) == 4096
                assert os.lseek(fd, 4096, os.SEEK_DATA) == 12288

    @pytest.mark.sessions(*KERNEL_SESSIONS)
    def test_a_file_without_a_name_gets_one(self, layers):
        with served(layers) as mnt:
            fd = os.open(mnt, os.O_TMPFILE | os.O_RDWR, 0o640)
            try:
                os.write(fd, OLD)
                assert os.listdir(mnt) == []
                run("ln", "--logical", f"/proc/{os.getpid()}/fd/{fd}", mnt / "file")
                os.pwrite(fd, NEW, 0)
            finally:
                os.close(fd)
            assert (mnt / "file").read_bytes() == NEW
            assert (mnt / "file").stat().st_mode == stat.S_IFREG | 0o640

    @pytest.mark.parametrize("source", ["lower", "upper"])
    @pytest.mark.parametrize("target", ["lower", "upper", "new"])
    def test_data_is_copied_in_the_kernel(self, layers, source, target):
        for place, base in (("lower", layers.lowers[0]), ("upper", layers.upper)):
            (base / f"from-{place}").write_bytes(OLD)
            (base / f"to-{place}").write_bytes(b"x" * 100)
        with served(layers) as mnt:
            with (
                opened(mnt / f"from-{source}") as one,
                opened(mnt / f"to-{target}", os.O_RDWR | os.O_CREAT) as other,
            ):
                assert os.copy_file_range(one, other, SIZE, 0, 0) == SIZE
                assert os.pread(other, 2 * SIZE, 0) == OLD
                assert os.sendfile(other, one, 0, 1000) == 1000
            assert (mnt / f"to-{target}").read_bytes() == OLD
            assert (mnt / f"from-{source}").read_bytes() == OLD

    def test_locks_hold_from_before_the_copy_up(self, layers):
        (layers.lowers[0] / "file").write_bytes(OLD)
        with served(layers) as mnt, opened(mnt / "file", os.O_RDWR) as holder:
            fcntl.flock(holder, fcntl.LOCK_EX)
            with opened(mnt / "file", os.O_RDWR) as other:
                os.pwrite(holder, NEW, 0)
                with pytest.raises(BlockingIOError):
                    fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
                fcntl.flock(holder, fcntl.LOCK_UN)
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.root
class TestPrivileges:
    @pytest.mark.parametrize("place", ["lower", "upper"])
    @pytest.mark.parametrize("opened_before", [False, True])
    def test_a_write_by_a_plain_user_clears_setuid(self, layers, place, opened_before):
        base = layers.lowers[0] if place == "lower" else layers.upper
        layers.mnt.parent.chmod(0o755)
        (base / "file").write_bytes(OLD)
        (base / "file").chmod(0o6777)
        with served(layers) as mnt, contextlib.ExitStack() as stack:
            if opened_before:
                stack.enter_context(opened(mnt / "file"))
            # by a descriptor, for which the way to it does not matter
            directory = stack.enter_context(opened(mnt, os.O_PATH | os.O_DIRECTORY))
            with acting_as(NOBODY):
                fd = os.open("file", os.O_RDWR, dir_fd=directory)
                try:
                    os.pwrite(fd, NEW, 0)
                finally:
                    os.close(fd)
            assert stat.S_IMODE((mnt / "file").stat().st_mode) == 0o777
            assert (mnt / "file").read_bytes() == NEW

    @pytest.mark.parametrize("place", ["lower", "upper"])
    def test_a_write_takes_file_capabilities_away(self, layers, place):
        base = layers.lowers[0] if place == "lower" else layers.upper
        shutil.copy("/bin/true", base / "file")
        # version 2, cap_net_raw permitted and effective
        capability = bytes.fromhex("0100000200200000000000000000000000000000")
        os.setxattr(base / "file", "security.capability", capability)
        with served(layers) as mnt:
            assert os.getxattr(mnt / "file", "security.capability") == capability
            write(mnt / "file", b"#!/bin/true\n")
            assert "security.capability" not in os.listxattr(mnt / "file")
        if place == "lower":
            assert os.getxattr(base / "file", "security.capability") == capability


@pytest.mark.root
class TestFullUpper:
    # where the kernel gathers writes, it is told later: see test_failures.py
    @pytest.mark.sessions(PYFUSE3, KERNEL_PASSTHROUGH)
    @pytest.mark.parametrize("place", ["lower", "upper"])
    def test_that_there_is_no_room_is_told_at_the_write(self, layers, place):
        small = layers.mnt.with_name("small")
        small.mkdir()
        run("mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", small)
        try:
            upper, work = small / "upper", small / "work"
            upper.mkdir()
            work.mkdir()
            base = layers.lowers[0] if place == "lower" else upper
            (base / "file").write_bytes(OLD)
            with union_mount(Layers(layers.lowers, upper, work, layers.mnt, layers.log)) as mnt:
                with opened(mnt / "file", os.O_WRONLY | os.O_APPEND) as fd:
                    with pytest.raises(OSError, match="No space left"):
                        write_without_end(fd)
                    size = os.fstat(fd).st_size
                content = (mnt / "file").read_bytes()
                assert content == OLD + b"w" * (size - SIZE)
            assert (upper / "file").stat().st_size == size
        finally:
            run("umount", small)


def write_without_end(fd: int) -> None:
    while True:
        os.write(fd, b"w" * MIB)
