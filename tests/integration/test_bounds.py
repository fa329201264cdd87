"""What a daemon takes is bounded: descriptors, memory, time; and it lets go of who waits for it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.commands import (
    foreground,
    open_descriptors,
    slow_copy,
    statistics,
    unionfuse,
    wait_until,
)
from tests.support.mounts import Layers, daemon_pids, is_mounted, union_mount
from tests.support.programs import run, served
from tests.support.sessions import KERNEL_AUTO, KERNEL_PASSTHROUGH, KERNEL_SESSIONS

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.fuse, pytest.mark.timeout(100)]

MIB = 1 << 20

# Opens the files FIRST to LAST, then, a line on its input at a time, reads some of them and ends.
HOLDER = """
import os, resource, sys
mnt, first, last, every = sys.argv[1], *map(int, sys.argv[2:])
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
fds = {n: os.open(f"{mnt}/{n // 1000}/{n}", os.O_RDONLY) for n in range(first, last)}
print("open", flush=True)
for line in sys.stdin:
    for n in range(first, last, every):
        assert os.pread(fds[n], 100, 0) == f"file {n}".encode(), n
    print("read", flush=True)
"""


@contextlib.contextmanager
def holders(mnt: Path, count: int, processes: int, every: int) -> Iterator[list[Holder]]:
    """Let some processes hold the files of `mnt` open."""
    share = count // processes
    with contextlib.ExitStack() as stack:
        started = []
        for number in range(processes):
            arguments = [mnt, number * share, (number + 1) * share, every]
            process = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", HOLDER, *map(str, arguments)],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                )
            )  # fmt: skip
            stack.callback(process.kill)
            started.append(Holder(process))
        for holder in started:
            assert holder.answer() == "open"
        yield started


class Holder:
    """A process that holds files open."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def read(self) -> None:
        """Let it read some of its files and see that they are right."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        assert self.answer() == "read"


@pytest.fixture
def layers(layers: Layers) -> Iterator[Layers]:
    """Put many small files in memory: making them is not what is tested."""
    if os.geteuid() != 0:
        yield layers
        return
    base = layers.mnt.parent
    run("mount", "-t", "tmpfs", "tmpfs", base)
    try:
        yield Layers.create(base, len(layers.lowers))
    finally:
        run("umount", base)


# The library behind the other session has every open file opened by the daemon, too.
@pytest.mark.sessions(*KERNEL_SESSIONS)
@pytest.mark.slow
class TestOpenFiles:
    COUNT, PROCESSES, EVERY, UNLINKED = 50_000, 5, 50, 300
    MOST = 6000

    def test_fifty_thousand_files_are_open_and_the_daemon_has_few_of_them(self, layers):
        for thousand in range(self.COUNT // 1000):
            base = (layers.lowers[0], layers.upper)[thousand % 2]
            make_many(base / f"{thousand}", range(thousand * 1000, (thousand + 1) * 1000))
            for number in range(thousand * 1000, (thousand + 1) * 1000, self.EVERY):
                (base / f"{thousand}" / f"{number}").write_text(f"file {number}")
        with (
            union_mount(layers) as mnt,
            holders(mnt, self.COUNT, self.PROCESSES, self.EVERY) as held,
        ):
            [pid] = daemon_pids(mnt)
            assert open_descriptors(pid) < self.MOST
            for holder in held:
                holder.read()
            # of a file that has no name any more the daemon may have to keep one
            for number in range(0, self.UNLINKED * self.EVERY, self.EVERY):
                (mnt / f"{number // 1000}" / f"{number}").unlink()
            for holder in held:
                holder.read()
            assert open_descriptors(pid) < self.MOST
            (mnt / "new").write_text("new")
            assert (mnt / "new").read_text() == "new"

    def test_unlinked_files_of_every_origin_are_read_while_they_are_open(self, layers):
        count = 600
        for number in range(count):
            (layers.lowers[0] / "0").mkdir(exist_ok=True)
            (layers.lowers[0] / "0" / f"{number}").write_text(f"file {number}")
        with served(layers) as mnt:
            [pid] = daemon_pids(mnt)
            before = open_descriptors(pid)
            for number in range(0, count, 3):  # of the upper by now
                (mnt / "0" / f"{number}").write_text(f"file {number}")
            with holders(mnt, count, 2, 1) as held:
                run("rm", "-r", mnt / "0")
                for holder in held:
                    holder.read()
                assert open_descriptors(pid) < before + count + 100
            # whoever held them has ended: nothing is left of them
            wait_until(lambda: open_descriptors(pid) < before + 100)


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.sessions(KERNEL_AUTO)
class TestMemory:
    COUNT = 200_000
    PER_NODE = 450  # bytes
    BASE = 4 * MIB

    @pytest.mark.skipif(
        "UNIONFUSE_TEST_DROP_CACHES" in os.environ, reason="the kernel forgets nodes meanwhile"
    )
    def test_what_a_walk_takes_is_bounded_and_given_back(self, layers, record_property):
        for number in range(self.COUNT // 1000):
            make_many(layers.lowers[number % 2] / f"{number}", range(1000))
        with union_mount(layers) as mnt:
            [pid] = daemon_pids(mnt)
            os.listdir(mnt)
            before = memory(pid)
            for _ in range(3):
                self.walk(mnt)
                if statistics(layers)[0] >= self.COUNT:  # else the kernel has forgotten some
                    break
            grown = memory(pid) - before
            record_property("bytes per node", grown / self.COUNT)
            assert grown < self.COUNT * self.PER_NODE + self.BASE
            Path("/proc/sys/vm/drop_caches").write_text("2")
            wait_until(lambda: statistics(layers)[0] < self.COUNT / 100)
            left = memory(pid) - before
            record_property("bytes left", left)
            # Python gives back only what is free as a whole, and uses the rest again
            assert left < 3 * grown / 4 + self.BASE
            self.walk(mnt)
            assert memory(pid) - before < 1.1 * grown + self.BASE

    def walk(self, mnt: Path) -> None:
        """Look at every file once."""
        found = run("find", mnt, "-type", "f", "-newermt", "1970-01-02", "-printf", "x")
        assert len(found) == self.COUNT


def make_many(directory: Path, numbers: range) -> None:
    """Make a directory of many empty files."""
    directory.mkdir()
    run("sh", "-c", f"seq {numbers[0]} {numbers[-1]} | xargs touch", cwd=directory)


def memory(pid: int) -> int:
    """Return the bytes of memory that a process has, its share of what it shares with others."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("Pss:")).split()[1]) * 1024


class TestIdle:
    @pytest.mark.sessions(KERNEL_PASSTHROUGH)
    @pytest.mark.parametrize("microseconds", [0, 10_000])
    def test_a_daemon_sleeps_however_long_it_looks_for_the_next_request(self, layers, microseconds):
        for number in range(100):
            (layers.lowers[0] / f"{number}").write_text(f"{number}")
        with union_mount(layers, "--poll-us", f"{microseconds}") as mnt:
            for number in range(100):
                assert (mnt / f"{number}").read_text() == f"{number}"
                (mnt / f"{number}").write_text("changed")
            assert_idle(mnt, 2)


def assert_idle(mnt: Path, seconds: float) -> None:
    """Check that the daemon of a mount does nothing for so long.

    The kernel tells it what it forgets, and does that when it likes: there is a second try.
    """
    [pid] = daemon_pids(mnt)
    spent = []
    for _ in range(3):
        time.sleep(1)
        before = ticks(pid), wakeups(pid)
        time.sleep(seconds)
        spent.append((ticks(pid) - before[0], wakeups(pid) - before[1]))
        if spent[-1] == (0, 0):
            return
    raise AssertionError(f"ticks and wakeups in {seconds} s, three times: {spent}")


def ticks(pid: int) -> int:
    """Return the processor time that a process has used, in hundredths of a second."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def wakeups(pid: int) -> int:
    """Return how often the threads of a process have gone to sleep, each to be woken."""
    found = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        lines = status.read_text().splitlines()
        [line] = [line for line in lines if line.startswith("voluntary_ctxt_switches")]
        found += int(line.split()[1])
    return found


CHMOD = "import os, sys; print(flush=True); os.chmod(sys.argv[1], 0o600)"
CHMOD_WITH_A_HANDLER = f"""
import signal
signal.signal(signal.SIGUSR1, lambda *_: None)
{CHMOD}
"""


@contextlib.contextmanager
def changing(path: Path, program: str = CHMOD) -> Iterator[subprocess.Popen[str]]:
    """Let a process change the mode of a file, for which it may have to wait."""
    command = [sys.executable, "-c", program, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield process
        finally:
            process.kill()


class TestWaiting:
    COUNT = 6

    def make(self, layers: Layers) -> None:
        for number in range(self.COUNT):
            (layers.lowers[0] / f"{number}").write_bytes(b"a" * MIB)

    @pytest.mark.parametrize("way", ["a signal", "a forced unmount"])
    def test_the_daemon_ends_while_processes_wait_for_it(self, layers, way):
        self.make(layers)
        with foreground(layers, before=slow_copy(3)) as daemon, contextlib.ExitStack() as stack:
            changers = [
                stack.enter_context(changing(layers.mnt / f"{number}"))
                for number in range(self.COUNT)
            ]
            wait_until(lambda: len(os.listdir(layers.work / "work")) == self.COUNT)
            if way == "a signal":
                daemon.send_signal(signal.SIGTERM)
            else:
                run("umount", "-f", "-l", layers.mnt)
            for changer in changers:
                changer.wait(20)
            assert daemon.wait(20) == 0
            assert not is_mounted(layers.mnt)
        with served(layers) as mnt:
            assert os.listdir(layers.work / "work") == []
            for number in range(self.COUNT):
                assert (mnt / f"{number}").read_bytes() == b"a" * MIB

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=lambda one: one.name)
    def test_a_process_is_ended_while_it_waits_and_nobody_is_harmed(self, layers, number):
        self.make(layers)
        with foreground(layers, before=slow_copy(2)):
            with changing(layers.mnt / "0") as first, changing(layers.mnt / "0") as second:
                wait_until(lambda: os.listdir(layers.work / "work"))
                time.sleep(0.2)
                first.send_signal(number)
                assert first.wait(20) != 0
                assert second.wait(20) == 0
            assert (layers.mnt / "0").stat().st_mode == 0o100600
            assert (layers.mnt / "0").read_bytes() == b"a" * MIB
            (layers.mnt / "new").write_text("new")
            assert os.listdir(layers.work / "work") == []
            assert unionfuse("umount", layers.mnt).returncode == 0
        assert "ERROR" not in layers.log.read_text()

    def test_a_signal_that_is_handled_ends_no_request(self, layers):
        self.make(layers)
        with foreground(layers, before=slow_copy(1)):
            with changing(layers.mnt / "0", CHMOD_WITH_A_HANDLER) as changer:
                wait_until(lambda: os.listdir(layers.work / "work"))
                for _ in range(5):
                    changer.send_signal(signal.SIGUSR1)
                    time.sleep(0.05)
                assert changer.wait(20) == 0
            assert (layers.mnt / "0").stat().st_mode == 0o100600
            assert (layers.mnt / "0").read_bytes() == b"a" * MIB
        assert "ERROR" not in layers.log.read_text()
