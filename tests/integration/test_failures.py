"""When the disk is full or the daemon dies, files are as before or as asked for, never between."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import random
import signal
import stat
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.commands import foreground, slow_copy, unionfuse, wait_until
from tests.support.mounts import (
    REPOSITORY,
    Layers,
    daemon_pids,
    is_mounted,
    public_directory,
)
from tests.support.programs import identities, run, served

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

pytestmark = [pytest.mark.fuse, pytest.mark.timeout(100), pytest.mark.data]

MIB = 1 << 20


@contextlib.contextmanager
def small_layers(size: str) -> Iterator[Layers]:
    """Make a union whose upper and workdir are on a filesystem of `size`, its lower is not."""
    with public_directory() as base:
        small = base / "small"
        small.mkdir()
        run("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", small)
        try:
            layers = Layers(
                (base / "lower",), small / "upper", small / "work", base / "mnt", base / "log"
            )
            for directory in (*layers.lowers, layers.upper, layers.work, layers.mnt):
                directory.mkdir()
            yield layers
        finally:
            run("umount", small)


@pytest.mark.root
class TestFullUpper:
    def test_a_copy_up_that_has_no_room_leaves_the_file_as_it_was(self):
        content = os.urandom(MIB) * 8
        with small_layers("4m") as layers:
            file = layers.lowers[0] / "directory" / "file"
            file.parent.mkdir()
            file.write_bytes(content)
            file.chmod(0o640)
            os.setxattr(file, "user.x", b"1")
            with served(layers, "-o", "metacopy=off") as mnt:
                shown = mnt / "directory" / "file"
                before = shown.stat()
                for change in (
                    lambda: shown.chmod(0o600),
                    lambda: os.setxattr(shown, "user.x", b"2"),
                    lambda: os.truncate(shown, len(content) - 1),
                    lambda: os.link(shown, mnt / "link"),
                    lambda: shown.rename(mnt / "renamed"),
                    lambda: os.utime(shown),
                ):
                    with pytest.raises(OSError, match="No space left") as caught:
                        change()
                    assert caught.value.errno == errno.ENOSPC
                    assert same(shown.stat(), before)
                    assert os.getxattr(shown, "user.x") == b"1"
                assert shown.read_bytes() == content
                assert os.listdir(mnt) == ["directory"]
                assert os.listdir(shown.parent) == ["file"]
                # no part of it takes up the room for others
                assert os.listdir(layers.work / "work") == []
                (mnt / "small").write_bytes(b"x" * 3 * MIB)
                shown.unlink()
                assert os.listdir(mnt / "directory") == []

    def test_attributes_alone_need_no_room_for_the_data(self):
        content = os.urandom(MIB) * 8
        with small_layers("4m") as layers:
            file = layers.lowers[0] / "file"
            file.write_bytes(content)
            with served(layers) as mnt:
                (mnt / "file").chmod(0o600)
                (mnt / "file").rename(mnt / "renamed")
                for _ in range(2):
                    with pytest.raises(OSError, match="No space left"):
                        os.truncate(mnt / "renamed", len(content) - 1)
                    assert (mnt / "renamed").read_bytes() == content
                (mnt / "small").write_bytes(b"x" * 3 * MIB)
            with served(layers) as mnt:
                assert (mnt / "renamed").read_bytes() == content

    def test_a_write_whose_copy_up_has_no_room_is_an_error_and_the_file_stays_whole(self):
        content = os.urandom(MIB) * 8
        with small_layers("4m") as layers:
            file = layers.lowers[0] / "file"
            file.write_bytes(content)
            with served(layers) as mnt:
                for _ in range(3):
                    with pytest.raises(OSError, match="No space left") as caught:
                        write_somewhere(mnt / "file")
                    assert caught.value.errno == errno.ENOSPC
                    assert os.listdir(mnt) == ["file"]
                    # Where writes are gathered the kernel sets the time, which needs no data.
                    assert set(os.listdir(layers.upper)) <= {"file"}
                    assert os.listdir(layers.work / "work") == []
                (mnt / "small").write_bytes(b"x" * 3 * MIB)
            # data that found no room may be seen until the kernel lets go of it
            with served(layers) as mnt:
                assert (mnt / "file").read_bytes() == content
                (mnt / "file").unlink()
                assert os.listdir(mnt) == ["small"]

    def test_a_write_that_has_no_room_fails_and_goes_on_when_there_is_some(self):
        with small_layers("4m") as layers:
            (layers.lowers[0] / "file").write_bytes(b"lower")
            with served(layers) as mnt:
                (mnt / "filler").write_bytes(b"f" * 2 * MIB)
                fd = os.open(mnt / "file", os.O_WRONLY | os.O_APPEND)
                try:
                    written = write_until_full(fd, 8 * MIB)
                    assert written > MIB
                    (mnt / "filler").unlink()
                    # the kernel lets go of a removed file a moment later
                    wait_until(lambda: os.statvfs(mnt).f_bavail > 100)
                    assert os.write(fd, b"more") == 4
                    os.fsync(fd)
                finally:
                    os.close(fd)
            with served(layers) as mnt:
                whole = (mnt / "file").read_bytes()
                assert whole.startswith(b"lower" + b"w" * written)
                assert whole.endswith(b"more")

    def test_a_full_upper_refuses_new_names_and_takes_them_later(self):
        with small_layers("4m,nr_inodes=40") as layers:
            for number in range(60):
                (layers.lowers[0] / f"lower-{number:02}").write_text("lower")
            with served(layers) as mnt:
                made = make_until_full(mnt / f"new-{number:02}" for number in range(60))
                for make in (
                    lambda: (mnt / "another").mkdir(),
                    lambda: (mnt / "another").symlink_to("x"),
                    lambda: os.mkfifo(mnt / "another"),
                    lambda: (mnt / "lower-00").chmod(0o600),
                ):
                    with pytest.raises(OSError, match="No space left"):
                        make()
                shown = {f"lower-{number:02}" for number in range(60)}
                assert set(os.listdir(mnt)) == shown | {path.name for path in made}
                for path in made:
                    path.unlink()
                (mnt / "another").mkdir()
                (mnt / "lower-00").chmod(0o600)
                assert set(os.listdir(mnt)) == shown | {"another"}
                assert (mnt / "lower-00").read_text() == "lower"


def write_somewhere(path: Path) -> None:
    """Write into a file; that there is no room may be told at its open, write, fsync or close."""
    fd = os.open(path, os.O_RDWR)
    try:
        os.pwrite(fd, b"written", MIB)
        os.fsync(fd)
    finally:
        os.close(fd)


def write_until_full(fd: int, limit: int) -> int:
    """Return how many bytes reached the upper before there was no room for more."""
    written = 0
    while written < limit:
        try:
            size = os.write(fd, b"w" * 65536)
            os.fsync(fd)
            written += size
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            return written
    raise AssertionError(f"{limit} bytes had room")


def make_until_full(paths: Iterable[Path]) -> list[Path]:
    """Return the files that were made before there was no room for more."""
    made = []
    for path in paths:
        try:
            path.touch()
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            return made
        made.append(path)
    raise AssertionError(f"{len(made)} files had room")


def same(one: os.stat_result, other: os.stat_result) -> bool:
    """Tell whether all but the access time and the time of the change are equal."""
    return all(
        getattr(one, name) == getattr(other, name)
        for name in ("st_mode", "st_ino", "st_nlink", "st_uid", "st_gid", "st_size", "st_mtime_ns")
    )


class Killed:
    """A union whose daemon is killed in the midst of work."""

    def __init__(self, layers: Layers) -> None:
        self.layers = layers
        self.before = [identities(lower) for lower in layers.lowers]

    def mount(self) -> None:
        layers = self.layers
        lowers = ":".join(map(str, layers.lowers))
        done = unionfuse("mount", "--workdir", layers.work, lowers, layers.upper, layers.mnt)
        assert done.returncode == 0, done.stderr

    def work(self, script: str, seconds: float) -> int:
        """Let a process work on the mount and kill the daemon after `seconds`.

        Returns:
            The last number that the process has printed: so much was done for certain.
        """
        with subprocess.Popen(
            [sys.executable, "-c", script, self.layers.mnt], stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as worker:  # fmt: skip
            assert worker.stdout is not None
            worker.stdout.readline()  # it has begun
            time.sleep(seconds)
            [pid] = daemon_pids(self.layers.mnt)
            os.kill(pid, signal.SIGKILL)
            lines = worker.communicate(timeout=30)[0].splitlines()
            assert worker.returncode != 0, "it was done before the daemon was killed"
        return int(lines[-1]) if lines else 0

    def recover(self) -> None:
        """Take the dead mount away, mount again, and see that what was left is gone."""
        layers = self.layers
        with pytest.raises(OSError, match="not connected"):
            os.listdir(layers.mnt)
        done = unionfuse("umount", "--lazy", layers.mnt)
        assert done.returncode == 0, done.stderr
        assert not is_mounted(layers.mnt)
        self.mount()
        assert os.listdir(layers.work / "work") == []
        assert [identities(lower) for lower in layers.lowers] == self.before

    def unmount(self) -> None:
        assert unionfuse("umount", self.layers.mnt).returncode == 0


SMALL, CHUNK = 100, b"appended chunk, whole or not at all\n"
APPENDING = f"""
import os, sys
print(0, flush=True)
for number in range(100000):
    fd = os.open(f"{{sys.argv[1]}}/directory/{{number:04}}", os.O_WRONLY | os.O_APPEND)
    os.write(fd, {CHUNK!r})
    os.close(fd)
    print(number + 1, flush=True)
"""


class TestKilledDaemon:
    MANY = 100_000  # changes of names, more than are made before the daemon is killed

    @pytest.mark.parametrize("seconds", [0.02, 0.1, 0.3, 0.6])
    def test_during_copy_ups_every_file_is_old_or_new(self, layers, seconds):
        directory = layers.lowers[0] / "directory"
        directory.mkdir()
        count = 1500
        content = {}
        for number in range(count):
            # some are copied in a thread, some at once
            data = bytes([number % 256]) * (SMALL if number % 3 else 200_000)
            content[f"{number:04}"] = data
            (directory / f"{number:04}").write_bytes(data)
        killed = Killed(layers)
        killed.mount()
        done = killed.work(APPENDING, seconds)
        killed.recover()
        shown = layers.mnt / "directory"
        assert sorted(os.listdir(shown)) == sorted(content)
        for number, (name, old) in enumerate(content.items()):
            found = (shown / name).read_bytes()
            # one more may have been written whose answer was not heard
            allowed = {number < done: [old + CHUNK], number == done: [old, old + CHUNK]}.get(
                True, [old]
            )
            assert found in allowed, f"{name}: {len(found)} bytes of {len(old)}, {done} were done"
        # the union goes on as if nothing had been
        for name in (f"{done:04}", f"{count - 1:04}"):
            with open(shown / name, "ab") as file:
                file.write(b"again")
            assert (shown / name).read_bytes().endswith(b"again")
        killed.unmount()

    @pytest.mark.parametrize("seed", range(4))
    def test_during_changes_of_names_the_tree_is_one_of_those_asked_for(self, layers, seed):
        for number, lower in enumerate(layers.lowers):
            for name in ("a", "b", "c"):
                (lower / name).mkdir()
                for file in range(5):
                    (lower / name / f"{file}-{number}").write_text(f"{name} {file} {number}")
        script = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(REPOSITORY)!r})
from tests.integration.test_failures import apply, draw_names
print(0, flush=True)
for number, op in enumerate(draw_names({seed}, {self.MANY})):
    apply(Path(sys.argv[1]), op)
    print(number + 1, flush=True)
"""
        killed = Killed(layers)
        killed.mount()
        done = killed.work(script, 0.1 + 0.15 * seed)
        killed.recover()
        model = layers.mnt.with_name("model")
        run("sh", "-c", f"mkdir {model}; cp -a {layers.lowers[1]}/. {layers.lowers[0]}/. {model}")
        ops = draw_names(seed, self.MANY)
        for op in itertools.islice(ops, done):
            apply(model, op)
        states = [names_and_texts(model)]
        apply(model, next(ops))
        states.append(names_and_texts(model))
        assert done > 0
        assert names_and_texts(layers.mnt) in states
        for op in itertools.islice(ops, 100):
            apply(layers.mnt, op)
        killed.unmount()

    @pytest.mark.parametrize("when", ["before the data", "after the data"])
    def test_in_the_midst_of_one_copy_up_the_file_is_old_and_the_workdir_is_cleaned(
        self, layers, when
    ):
        (layers.lowers[0] / "file").write_bytes(b"old" * MIB)
        killed = Killed(layers)
        with foreground(layers, before=slow_copy(30, first=when == "before the data")) as daemon:
            with subprocess.Popen(["chmod", "600", layers.mnt / "file"]) as changer:
                wait_until(lambda: os.listdir(layers.work / "work"))
                time.sleep(0.5)
                daemon.kill()
                assert changer.wait(20) != 0
            killed.recover()
            assert os.listdir(layers.upper) == []
            assert (layers.mnt / "file").read_bytes() == b"old" * MIB
            assert stat.S_IMODE((layers.mnt / "file").stat().st_mode) == 0o644
            killed.unmount()

    def test_a_dead_mount_is_listed_as_dead_and_answers_at_once(self, layers):
        killed = Killed(layers)
        killed.mount()
        [pid] = daemon_pids(layers.mnt)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not daemon_pids(layers.mnt))
        lines = unionfuse("ls").stdout.splitlines()
        assert "dead" in lines[lines.index(str(layers.mnt)) + 1]
        killed.recover()
        killed.unmount()

    def test_a_killed_daemon_holds_no_lock_on_its_layers(self, layers):
        killed = Killed(layers)
        for number in range(2):
            killed.mount()
            (layers.mnt / f"{number}").touch()
            [pid] = daemon_pids(layers.mnt)
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: not daemon_pids(layers.mnt))
            assert unionfuse("umount", "--lazy", layers.mnt).returncode == 0
        with served(layers) as mnt:
            assert sorted(os.listdir(mnt)) == ["0", "1"]


Op = list[str]


def draw_names(seed: int, count: int) -> Iterator[Op]:
    """Draw operations on names; some find nothing to work on."""
    rng = random.Random(seed)
    directories = ["a", "b", "c", "a/new", "b/new", "c/new"]
    files = [f"{number}-{layer}" for number in range(5) for layer in range(2)]

    def path() -> str:
        return f"{rng.choice(directories)}/{rng.choice(files)}"

    for _ in range(count):
        kind = rng.choice(["rename", "rename", "unlink", "write", "mkdir", "rmdir", "link"])
        if kind in ("mkdir", "rmdir"):
            yield [kind, rng.choice(directories[3:])]
        elif kind in ("rename", "link"):
            yield [kind, path(), path()]
        else:
            yield [kind, path()]


def apply(root: Path, op: Op) -> None:
    """Make one change; one that is not possible is none."""
    kind, *paths = op
    first, last = root / paths[0], root / paths[-1]
    actions: dict[str, Callable[[], object]] = {
        "rename": lambda: first.rename(last),
        "link": lambda: os.link(first, last),
        "unlink": first.unlink,
        "mkdir": first.mkdir,
        "rmdir": first.rmdir,
        # one request makes it, and one cannot write it before: the file is empty
        "write": lambda: os.close(os.open(first, os.O_CREAT | os.O_EXCL | os.O_WRONLY)),
    }
    try:
        actions[kind]()
    except (FileNotFoundError, FileExistsError):
        pass
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise


def names_and_texts(root: Path) -> dict[str, str | None]:
    """Map every name below `root` to its content, directories to None."""
    return {
        str(path.relative_to(root)): None if path.is_dir() else path.read_text()
        for path in root.rglob("*")
    }
