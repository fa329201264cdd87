"""The daemon: signals, its log, many requests at a time, and errors that nobody has foreseen."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.commands import foreground, slow_copy, statistics, unionfuse, wait_until
from tests.support.files import opened
from tests.support.mounts import Layers, daemon_pids, is_mounted, union_mount
from tests.support.sessions import KERNEL_PASSTHROUGH, held_views

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [pytest.mark.fuse, pytest.mark.timeout(90)]

MIB = 1 << 20


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
class TestEndingSignals:
    def test_it_unmounts_and_exits_with_0(self, layers, number):
        with foreground(layers) as daemon:
            (layers.mnt / "file").write_text("written")
            daemon.send_signal(number)
            assert daemon.wait(20) == 0
            assert not is_mounted(layers.mnt)
        assert (layers.upper / "file").read_text() == "written"
        assert os.listdir(layers.work / "work") == []

    def test_it_ends_all_the_same_when_the_mount_is_in_use(self, layers, number):
        with foreground(layers) as daemon:
            fd = os.open(layers.mnt / "file", os.O_CREAT | os.O_WRONLY)
            os.write(fd, b"written")
            daemon.send_signal(number)
            assert daemon.wait(20) == 0
            assert not is_mounted(layers.mnt)
            assert os.listdir(layers.mnt) == []
            # past the daemon, the kernel writes on to the file; it is said at fsync at the latest
            with pytest.raises(OSError, match=r"not connected|Input/output error"):
                write_and_sync(fd, b"more")
            with contextlib.suppress(OSError):
                os.close(fd)
        assert (layers.upper / "file").read_text() in ("written", "writtenmore")

    def test_a_daemon_in_the_background_does_so_too(self, layers, number):
        with union_mount(layers):
            [pid] = daemon_pids(layers.mnt)
            os.kill(pid, number)
            wait_until(lambda: not daemon_pids(layers.mnt))
            assert not is_mounted(layers.mnt)


def write_and_sync(fd: int, data: bytes) -> None:
    os.write(fd, data)
    os.fsync(fd)


class TestStatistics:
    def test_nodes_and_requests_are_counted(self, layers, session):
        for number in range(10):
            (layers.lowers[0] / f"{number}").write_text("text")
        with union_mount(layers):
            for number in range(10):
                (layers.mnt / f"{number}").read_text()
            (layers.mnt / "directory").mkdir()
            (layers.mnt / "3").unlink()
            (layers.mnt / "4").rename(layers.mnt / "directory" / "4")
            (layers.mnt / "5").unlink()
            nodes, requests = statistics(layers)
            assert nodes >= 10
            # there the kernel reads by itself
            assert requests.get("read", 0) == (0 if session == KERNEL_PASSTHROUGH else 10)
            assert (requests["mkdir"], requests["unlink"], requests["rename"]) == (1, 2, 1)
            assert requests["lookup"] >= 11

    def test_nodes_that_the_kernel_forgets_are_dropped(self, layers):
        for number in range(500):
            (layers.lowers[0] / f"{number}").touch()
        with union_mount(layers):
            # what is open is not forgotten before its time
            held = [os.open(path, os.O_PATH) for path in layers.mnt.iterdir()]
            assert statistics(layers)[0] > 500
            for path in layers.mnt.iterdir():
                path.unlink()
            assert statistics(layers)[0] > 500
            for fd in held:
                os.close(fd)
            wait_until(lambda: statistics(layers)[0] < 20)

    def test_the_kernel_asks_once_by_default_and_each_time_without_a_timeout(self, layers):
        (layers.lowers[0] / "file").touch()
        counts = {}
        for option in ("timeout=1000", "timeout=0"):
            with union_mount(layers, "-o", option):
                for _ in range(50):
                    (layers.mnt / "file").stat()
                    (layers.mnt / "missing").exists()
                requests = statistics(layers)[1]
                counts[option] = requests.get("lookup", 0) + requests.get("getattr", 0)
        assert counts["timeout=1000"] < 10
        assert counts["timeout=0"] >= 100


class TestUnforeseen:
    """An exception that no errno describes is an EIO for one caller and nothing for the others."""

    BROKEN = """
from unionfuse.union.fs import UnionFs
def readlink(self, nodeid):
    raise ZeroDivisionError("on purpose")
UnionFs.readlink = readlink
"""

    def test_it_is_answered_with_eio_logged_and_survived(self, layers):
        (layers.lowers[0] / "file").write_text("text")
        (layers.lowers[0] / "link").symlink_to("file")
        with foreground(layers, before=self.BROKEN) as daemon:
            for _ in range(3):
                with pytest.raises(OSError, match="Input/output error") as caught:
                    os.readlink(layers.mnt / "link")
                assert caught.value.errno == errno.EIO
                assert (layers.mnt / "file").read_text() == "text"
            (layers.mnt / "file").write_text("changed")
            assert daemon.poll() is None
            assert unionfuse("umount", layers.mnt).returncode == 0
            assert daemon.wait(20) == 0
        log = layers.log.read_text()
        assert log.count("readlink") >= 3
        assert log.count("ZeroDivisionError: on purpose") == 3
        assert "Traceback" in log

    def test_one_in_a_thread_does_not_end_the_daemon_either(self, layers):
        (layers.lowers[0] / "big").write_bytes(b"x" * MIB)
        broken = """
from unionfuse.union.copy_up import CopyUp
real = CopyUp.copy_data
def copy_data(self):
    CopyUp.copy_data = real
    raise ZeroDivisionError("on purpose")
CopyUp.copy_data = copy_data
"""
        with foreground(layers, before=broken) as daemon:
            with pytest.raises(OSError, match="Input/output error"):
                os.truncate(layers.mnt / "big", 10)
            assert os.listdir(layers.work / "work") == []
            assert (layers.mnt / "big").stat().st_size == MIB
            os.truncate(layers.mnt / "big", 10)
            assert (layers.mnt / "big").read_bytes() == b"x" * 10
            assert daemon.poll() is None
        assert "ZeroDivisionError" in layers.log.read_text()


class TestSlowRequests:
    LATENCY = 0.5  # seconds; an answer takes a thousandth of that on an idle machine

    def test_a_big_copy_up_holds_up_nobody_else(self, layers):
        size = 768 * MIB
        with open(layers.lowers[0] / "big", "wb") as big:
            block = os.urandom(MIB)
            big.writelines(block for _ in range(size // MIB))
        for number in range(100):
            (layers.lowers[1] / f"{number}").write_text("small")
        with union_mount(layers, "-o", "timeout=0"):
            mnt = layers.mnt
            latencies = []

            def measure(action: Callable[[], object]) -> None:
                began = time.monotonic()
                action()
                latencies.append(time.monotonic() - began)

            copying = threading.Thread(target=os.truncate, args=(mnt / "big", size - 1))
            copying.start()
            number = 0
            while copying.is_alive():
                number += 1
                measure((mnt / f"{number % 100}").stat)
                measure((mnt / f"{number % 100}").read_text)
                measure((mnt / f"new-{number}").touch)
                measure(lambda: os.listdir(mnt))
                measure((mnt / "big").stat)
                time.sleep(0.01)
            copying.join()
            assert (mnt / "big").stat().st_size == size - 1
        assert number > 5, "the copy-up was over at once"
        assert max(latencies) < self.LATENCY

    def test_readers_of_the_file_go_on_with_the_old_data(self, layers, session):
        (layers.lowers[0] / "file").write_bytes(b"a" * MIB)
        with foreground(layers, before=slow_copy(1)):
            file = layers.mnt / "file"
            reading = os.open(file, os.O_RDONLY)
            copying = threading.Thread(target=file.chmod, args=(0o600,))
            copying.start()
            reads = 0
            while copying.is_alive():
                assert file.read_bytes() == b"a" * MIB
                assert os.pread(reading, MIB, 0) == b"a" * MIB
                reads += 1
                time.sleep(0.01)
            copying.join()
            assert reads >= 5
            file.write_bytes(b"new")
            assert file.read_bytes() == b"new"
            assert os.pread(reading, MIB, 0) in held_views(session, b"a" * MIB, b"new")
            os.close(reading)

    def test_requests_that_need_the_same_copy_up_share_it(self, layers):
        (layers.lowers[0] / "file").write_bytes(b"a" * MIB)
        os.link(layers.lowers[0] / "file", layers.lowers[0] / "link")
        counting = """
from unionfuse.union.fs import UnionFs
begin = UnionFs.begin_copy_up
def begin_copy_up(self, node):
    import logging
    logging.getLogger("test").info("copy-up begins")
    return begin(self, node)
UnionFs.begin_copy_up = begin_copy_up
"""
        with foreground(layers, before=slow_copy(0.5) + counting):

            def change(name: str, offset: int) -> None:
                with open(layers.mnt / name, "r+b") as file:
                    file.seek(offset)
                    file.write(b"b")

            began = time.monotonic()
            threads = [
                threading.Thread(target=change, args=(name, offset))
                for name, offset in (("file", 0), ("file", 1), ("link", 2), ("link", 3))
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(30)
            assert time.monotonic() - began >= 0.5
            for name in ("file", "link"):
                assert (layers.mnt / name).read_bytes()[:5] == b"bbbba"
            log = layers.log.read_text()
        assert log.count("copy-up begins") == 1

    def test_different_copy_ups_go_on_together(self, layers):
        for number in range(4):
            (layers.lowers[0] / f"{number}").write_bytes(b"a" * MIB)
        with foreground(layers, before=slow_copy(1)):
            began = time.monotonic()
            threads = [
                threading.Thread(target=os.truncate, args=(layers.mnt / f"{number}", 1))
                for number in range(4)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(30)
            assert time.monotonic() - began < 3
            assert [(layers.mnt / f"{number}").read_text() for number in range(4)] == ["a"] * 4

    def test_what_happens_to_the_name_meanwhile_is_kept(self, layers):
        for name in ("removed", "renamed"):
            (layers.lowers[0] / name).write_bytes(b"a" * MIB)
        with foreground(layers, before=slow_copy(1)):
            mnt = layers.mnt
            threads = [
                threading.Thread(target=(mnt / name).chmod, args=(0o640,))
                for name in ("removed", "renamed")
            ]
            for thread in threads:
                thread.start()
            time.sleep(0.3)
            # a name in another directory's place can be taken while its file is being copied
            (mnt / "new").touch()
            (mnt / "new").rename(mnt / "newer")
            (mnt / "removed").unlink()
            (mnt / "renamed").rename(mnt / "elsewhere")
            for thread in threads:
                thread.join(30)
            assert sorted(os.listdir(mnt)) == ["elsewhere", "newer"]
            assert (mnt / "elsewhere").read_bytes() == b"a" * MIB
            assert (mnt / "elsewhere").stat().st_mode == 0o100640
            assert os.listdir(layers.work / "work") == []


class TestSync:
    # Which file it is tells its inode: a descriptor may have been opened under another name.
    COUNTING = """
import logging, os
upper = {upper!r}
def counted(name):
    real = getattr(os, name)
    def call(fd):
        inode = os.fstat(fd).st_ino
        published = os.path.exists(upper + "/file")
        logging.getLogger("test").info("%s of %d, published: %s", name, inode, published)
        return real(fd)
    setattr(os, name, call)
counted("fsync")
counted("fdatasync")
"""

    def change(self, layers: Layers, *options: str) -> list[str]:
        """Copy up a file, write and sync it and its directory; return what was synced."""
        (layers.lowers[0] / "file").write_bytes(b"a" * MIB)
        counting = self.COUNTING.format(upper=str(layers.upper))
        with foreground(layers, *options, before=counting):
            with open(layers.mnt / "file", "r+b", buffering=0) as file:
                file.write(b"b")
                os.fsync(file.fileno())
                file.write(b"c")
                os.fdatasync(file.fileno())
            directory = os.open(layers.mnt, os.O_RDONLY)
            os.fsync(directory)
            os.close(directory)
            assert (layers.mnt / "file").read_bytes()[:2] == b"bc"
            log = layers.log.read_text()
        return re.findall(r"f(?:data)?sync of \d+, published: \w+", log)

    def test_it_reaches_the_upper(self, layers):
        synced = self.change(layers)
        file, directory = ((layers.upper / name).stat().st_ino for name in ("file", "."))
        assert f"fsync of {file}, published: True" in synced
        assert f"fdatasync of {file}, published: True" in synced
        assert f"fsync of {directory}, published: True" in synced

    def test_the_data_of_a_copy_up_is_on_the_disk_before_it_is_published(self, layers):
        synced = self.change(layers)
        file = (layers.upper / "file").stat().st_ino
        assert re.fullmatch(rf"f(data)?sync of {file}, published: False", synced[0])
        assert not [line for line in synced[1:] if line.endswith("False")]

    @pytest.mark.parametrize("option", ["volatile", "fsync=0"])
    def test_a_volatile_mount_never_waits_for_the_disk(self, layers, option):
        assert self.change(layers, "-o", option) == []

    @pytest.mark.parametrize("option", ["fsync=auto", "volatile"])
    def test_an_error_of_the_upper_is_told_to_every_later_caller(self, layers, option):
        # as the kernel tells it: once for each descriptor, of which the daemon has one for all
        failing = """
import errno, os
from unionfuse.fuse import syncing
left = [errno.EIO]
def fail(fd):
    if left:
        raise OSError(left.pop(), "")
os.fsync = syncing.check_written = fail
"""
        (layers.upper / "file").write_bytes(b"a")
        (layers.upper / "other").write_bytes(b"a")
        options = ("-o", option)
        with foreground(layers, *options, before=failing), contextlib.ExitStack() as stack:
            one, two = (stack.enter_context(opened(layers.mnt / "file", os.O_RDWR)) for _ in "12")
            other = stack.enter_context(opened(layers.mnt / "other", os.O_RDWR))
            os.pwrite(one, b"b", 0)
            for fd in (one, two, one, two):
                with pytest.raises(OSError, match="Input/output error"):
                    os.fsync(fd)
            with (
                opened(layers.mnt / "file") as later,
                pytest.raises(OSError, match="Input/output error"),
            ):
                os.fsync(later)
            expected = pytest.raises(OSError, match="Input/output error")
            with expected if option == "volatile" else contextlib.nullcontext():
                os.fsync(other)

    def test_after_a_volatile_mount_the_next_one_is_refused(self, layers):
        self.change(layers, "-o", "volatile")
        where = ("--workdir", layers.work, layers.lowers[0], layers.upper, layers.mnt)
        refused = unionfuse("mount", *where)
        assert refused.returncode == 1
        assert "volatile" in refused.stderr
        shutil.rmtree(layers.work / "work" / "incompat")
        with union_mount(layers) as mnt:
            assert (mnt / "file").exists()

    def test_with_strict_all_of_a_copy_up_is_on_the_disk(self, layers):
        synced = self.change(layers, "-o", "fsync=strict")
        data, attributes = (line for line in synced if line.endswith("False"))
        assert data == attributes
