"""From the command to the first answer: what may take long, or fail, after the mount is there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.commands import unionfuse, wait_until
from tests.support.mounts import REPOSITORY, daemon_pids, is_mounted
from tests.support.sessions import KERNEL_SESSIONS, session_option

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.mounts import Layers

pytestmark = [pytest.mark.fuse, pytest.mark.timeout(90)]

# seconds that trio takes to be imported, if a test says so
SLOW = 3
SLOW_TRIO = f"""
import sys, time
class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "trio":
            time.sleep({SLOW})
sys.meta_path.insert(0, Slow())
"""
NO_TRIO = "import sys; sys.modules['trio'] = None"


def mount(layers: Layers, *options: str | Path, before: str) -> subprocess.CompletedProcess[bytes]:
    """Run `unionfuse mount` after the statements `before`."""
    program = f"{before}\nfrom unionfuse.cli import main\nmain()"
    arguments = [
        "mount", *session_option(), "--log", layers.log, "--workdir", layers.work, *options,
        ":".join(map(str, layers.lowers)), layers.upper, layers.mnt,
    ]  # fmt: skip
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        timeout=60,
        check=False,
    )


class TestWithoutTrio:
    def test_no_dead_mount_is_left_and_the_log_says_why(self, layers):
        mount(layers, before=NO_TRIO)
        wait_until(lambda: not is_mounted(layers.mnt) and not daemon_pids(layers.mnt))
        assert os.listdir(layers.mnt) == []
        assert "trio" in layers.log.read_text()

    @pytest.mark.sessions(*KERNEL_SESSIONS)
    def test_what_is_asked_at_once_is_answered(self, layers):
        (layers.lowers[0] / "file").write_text("text")
        began = time.monotonic()
        done = mount(layers, before=SLOW_TRIO)
        try:
            assert done.returncode == 0, done.stderr
            assert (layers.mnt / "file").read_text() == "text"
            (layers.mnt / "new").write_text("new")
            (layers.mnt / "directory").mkdir()
            assert sorted(os.listdir(layers.mnt)) == ["directory", "file", "new"]
            assert time.monotonic() - began < SLOW
        finally:
            assert unionfuse("umount", layers.mnt).returncode == 0
        assert (layers.upper / "new").read_text() == "new"

    @pytest.mark.sessions(*KERNEL_SESSIONS)
    def test_what_would_wait_is_done_when_it_is_there(self, layers):
        (layers.lowers[0] / "file").write_bytes(b"a" * (1 << 20))
        assert mount(layers, before=SLOW_TRIO).returncode == 0
        try:
            with open(layers.mnt / "file", "r+b") as file:
                file.write(b"b")
                os.fsync(file.fileno())
            assert (layers.upper / "file").read_bytes()[:2] == b"ba"
        finally:
            assert unionfuse("umount", layers.mnt).returncode == 0

    @pytest.mark.sessions(*KERNEL_SESSIONS)
    def test_an_unmount_meanwhile_ends_the_daemon(self, layers):
        assert mount(layers, before=SLOW_TRIO).returncode == 0
        assert unionfuse("umount", layers.mnt).returncode == 0
        assert not daemon_pids(layers.mnt)

    def test_a_signal_meanwhile_unmounts(self, layers):
        assert mount(layers, before=SLOW_TRIO).returncode == 0
        [pid] = daemon_pids(layers.mnt)
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not daemon_pids(layers.mnt))
        assert not is_mounted(layers.mnt)


class TestLog:
    @pytest.mark.sessions(*KERNEL_SESSIONS)
    def test_what_was_agreed_with_the_kernel_is_shown_by_a_debugging_mount(self, layers):
        with subprocess.Popen(
            [
                sys.executable, "-m", "unionfuse", "mount", *session_option(), "-d",
                layers.lowers[0], layers.upper, layers.mnt,
            ],
            cwd=REPOSITORY, stderr=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            try:
                wait_until(lambda: is_mounted(layers.mnt) or process.poll() is not None)
                os.listdir(layers.mnt)
                assert unionfuse("umount", layers.mnt).returncode == 0
                _, said = process.communicate(timeout=20)
            finally:
                process.kill()
        assert "FUSE 7." in said

    def test_a_file_that_can_not_be_written_is_told_in_one_line(self, layers):
        missing = layers.log / "log"
        done = unionfuse("mount", "--log", missing, layers.lowers[0], layers.upper, layers.mnt)
        assert (done.returncode, done.stderr) == (
            1,
            f"unionfuse: log file {missing}: No such file or directory\n",
        )
        assert not is_mounted(layers.mnt)


class TestIdle:
    @pytest.mark.slow
    def test_nothing_wakes_the_daemon(self, layers):
        assert mount(layers, before="").returncode == 0
        try:
            os.listdir(layers.mnt)
            [pid] = daemon_pids(layers.mnt)
            time.sleep(1)
            before = wake_ups(pid)
            time.sleep(10)
            assert wake_ups(pid) == before
        finally:
            assert unionfuse("umount", layers.mnt).returncode == 0


def wake_ups(pid: int) -> int:
    """Return how many times any thread of a process has gone to sleep."""
    total = 0
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/status") as status:
            lines = [line for line in status if line.startswith("voluntary_ctxt_switches")]
        total += int(lines[0].split()[1])
    return total
