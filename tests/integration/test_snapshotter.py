"""`unionfuse snapshotter`: its process, and what its mounts show.

The second part is what containerd's suite (core/snapshots/testsuite) asks of the mounts of a
snapshotter; what it asks of the answers alone is in unit/snapshots/test_service.
"""

from __future__ import annotations

import contextlib
import functools
import os
import random
import shutil
import signal
import socket
import stat
import subprocess
import threading
import time
from typing import TYPE_CHECKING

import grpc
import pytest

from tests.support import snapshots
from tests.support.commands import overlay, unionfuse, wait_until
from tests.support.snapshots import directories

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.snapshots import Client, Process
    from unionfuse.snapshots.messages import Mount

    Change = Callable[[Path], object]

pytestmark = [pytest.mark.root, pytest.mark.fuse, pytest.mark.once]


@pytest.fixture
def process() -> Iterator[Process]:
    with snapshots.snapshotter() as process:
        yield process


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[Process, Client]]:
    with snapshots.snapshotter() as process, process.client() as client:
        yield process, client


class TestProcess:
    def test_its_socket_is_for_its_user_alone(self, process):
        with process.client():
            assert stat.S_IMODE(process.address.stat().st_mode) == 0o600
            assert stat.S_IMODE(process.root.stat().st_mode) == 0o700

    @pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
    def test_a_signal_ends_it_and_leaves_no_socket(self, process, number, code):
        with process.client():
            pass
        assert process.end(number) == code
        assert not process.address.exists()

    def test_one_serves_a_root(self, process, tmp_path):
        with process.client():
            done = unionfuse("snapshotter", "--root", process.root, "--address", tmp_path / "s")
        assert done.returncode == 1
        assert done.stderr == f"unionfuse: {process.root}: another snapshotter serves it\n"

    def test_one_listens_on_a_socket(self, process, tmp_path):
        with process.client():
            done = unionfuse("snapshotter", "--root", tmp_path, "--address", process.address)
        assert done.returncode == 1
        assert "another process listens on it" in done.stderr

    def test_a_file_in_the_place_of_the_socket_is_left_alone(self, tmp_path):
        (tmp_path / "file").write_text("mine")
        done = unionfuse("snapshotter", "--root", tmp_path / "r", "--address", tmp_path / "file")
        assert done.returncode == 1
        assert "no socket" in done.stderr
        assert (tmp_path / "file").read_text() == "mine"

    def test_a_root_that_is_no_mount_option_is_refused(self, tmp_path):
        done = unionfuse("snapshotter", "--root", tmp_path / "a,b", "--address", tmp_path / "s")
        assert done.returncode == 1
        assert "no comma" in done.stderr

    def test_a_store_of_another_version_is_refused(self, process):
        with process.client():
            pass
        process.end()
        database = process.root / "metadata.sqlite3"
        subprocess.run(["sqlite3", database, "PRAGMA user_version = 99"], check=True, timeout=30)
        process.start()
        assert process.process is not None
        assert process.process.wait(timeout=30) == 1
        assert "version 99, not 1" in process.said()

    def test_systemd_is_told(self, process, tmp_path):
        with process.client():
            pass
        process.end()
        os.chdir(process.root.parent)  # the path of a socket has to be short
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
            notified.bind(str(process.root.parent / "notify"))
            notified.settimeout(30)
            os.environ["NOTIFY_SOCKET"] = str(process.root.parent / "notify")
            try:
                process.start()
            finally:
                del os.environ["NOTIFY_SOCKET"]
            assert notified.recv(100) == b"READY=1"
            process.end()
            assert notified.recv(100) == b"STOPPING=1"

    def test_what_it_knew_it_knows_after_a_restart(self, process):
        with process.client() as client:
            client.prepare("key", label="x")
            client.commit("base", "key", label="y")
            mounts = client.prepare("active", "base")
            before = client.list()
        process.end(signal.SIGKILL)
        process.start()
        with process.client() as client:
            assert client.list() == before
            assert client.mounts("active") == mounts


class Load(threading.Thread):
    """Makes, commits and removes snapshots until the snapshotter is gone.

    Attributes:
        present, absent: names that have to be there, and not, if the last call was the last.
        unsure: those of which nobody knows, as their call was not answered.
    """

    def __init__(self, client: Client, prefix: str) -> None:
        super().__init__()
        self._client, self._prefix = client, prefix
        self.present: set[str] = set()
        self.absent: set[str] = set()
        self.unsure: set[str] = set()

    def run(self) -> None:
        with contextlib.suppress(grpc.RpcError):
            for number in range(10_000):
                self._round(f"{self._prefix}-{number}")

    def _round(self, name: str) -> None:
        self.unsure = {f"{name}-a"}
        self._client.prepare(f"{name}-a")
        self.unsure = {f"{name}-a", name}
        self.present.add(f"{name}-a")
        self._client.commit(name, f"{name}-a")
        self.present.remove(f"{name}-a")
        self.absent.add(f"{name}-a")
        self.present.add(name)
        self.unsure = {name}
        if random.random() < 0.5:
            self._client.remove(name)
            self.present.remove(name)
            self.absent.add(name)
        self._client.cleanup()


def has_directories(process: Process, count: int) -> bool:
    return len(directories(process.root)) == count


@pytest.mark.parametrize("seed", range(2))
def test_a_kill_at_any_moment_leaves_snapshots_whole(process, seed):
    random.seed(seed)
    loads: list[Load] = []
    for round_ in range(3):
        if round_:
            process.start()
        with process.client() as client:
            names = {info.name for info in client.list()}
            for load in loads:
                assert load.present - load.unsure <= names
                assert not (load.absent - load.unsure) & names
            # a row for each directory, once the cleanup at the start has ended, and the reverse
            client.cleanup()
            wait_until(functools.partial(has_directories, process, len(names)))
            for info in client.list():
                if info.kind != 3:
                    (mount,) = client.mounts(info.name)
                    assert os.path.isdir(mount.source)
            client.prepare(f"after-{round_}")
            loads = [Load(client, f"{round_}-{number}") for number in range(3)]
            for load in loads:
                load.start()
            time.sleep(random.uniform(0.05, 0.4))
            process.end(signal.SIGKILL)
            for load in loads:
                load.join()


@contextlib.contextmanager
def mounted(mounts: tuple[Mount, ...], target: Path) -> Iterator[Path]:
    """Mount what the snapshotter has answered, as containerd does."""
    (mount,) = mounts
    target.mkdir(exist_ok=True)
    if mount.type == "bind":
        subprocess.run(["mount", "--bind", mount.source, target], check=True, timeout=30)
        if "ro" in mount.options:
            subprocess.run(["mount", "-o", "remount,bind,ro", target], check=True, timeout=30)
    else:
        assert mount.type == "fuse3.unionfuse-overlay"
        done = overlay(mount.source, target, "-o", ",".join((*mount.options, "dev", "suid")))
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
    try:
        yield target
    finally:
        subprocess.run(["umount", target], check=True, timeout=30)


def tree(base: Path) -> dict[str, tuple[object, ...]]:
    """Return what containerd's suite compares of a tree: kinds, modes, owners, content, links."""
    found = {}
    for directory, names, files in os.walk(base):
        for name in (*names, *files):
            path = os.path.join(directory, name)
            status = os.lstat(path)
            content: object = None
            if stat.S_ISREG(status.st_mode):
                with open(path, "rb") as file:
                    content = file.read()
            elif stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            key = os.path.relpath(path, base)
            found[key] = (status.st_mode, status.st_uid, status.st_gid, content)
    return found


def make_dir(path: str, mode: int = 0o755) -> Change:
    def change(base: Path) -> None:
        (base / path).mkdir()
        (base / path).chmod(mode)

    return change


def make_file(path: str, content: str, mode: int = 0o644) -> Change:
    def change(base: Path) -> None:
        (base / path).write_text(content)
        (base / path).chmod(mode)

    return change


def remove_all(path: str) -> Change:
    return lambda base: (
        shutil.rmtree(base / path) if (base / path).is_dir() else (base / path).unlink()
    )


def chown(path: str, uid: int, gid: int) -> Change:
    return lambda base: os.chown(base / path, uid, gid)


def link(old: str, new: str) -> Change:
    return lambda base: os.link(base / old, base / new)


def rename(old: str, new: str) -> Change:
    return lambda base: os.rename(base / old, base / new)


# By their names in the suite: a list of layers, each a list of changes.
LAYERS: dict[str, list[list[Change]]] = {
    "Basic": [
        [make_file("foo", "foo\n", 0o777), make_dir("a"), make_dir("a/b"), make_dir("a/b/c")],
        [make_file("bar", "bar\n", 0o777), make_file("foo", "bar\n", 0o777), remove_all("a/b")],
    ],
    "LayerFileupdate": [
        [
            make_dir("etc", 0o700), make_file("etc/hosts", "mydomain 10.0.0.1"),
            make_file("etc/profile", "PATH=/usr/bin"),
        ],
        [
            make_file("etc/hosts", "mydomain 10.0.0.2"),
            make_file("etc/profile", "PATH=/usr/bin", 0o666),
            make_dir("root", 0o700), make_file("root/.bashrc", "PATH=/usr/sbin:/usr/bin"),
        ],
    ],
    "RemoveDirectoryInLowerLayer": [
        [make_dir("lib", 0o700), make_file("lib/hidden", "")],
        [remove_all("lib"), make_dir("lib", 0o700), make_file("lib/not-hidden", "")],
        [make_file("lib/newfile", "")],
    ],
    "Chown": [
        [
            make_dir("opt", 0o700), make_dir("opt/a", 0o700), make_dir("opt/a/b", 0o700),
            make_file("opt/a/b/file.txt", "hello"),
        ],
        [
            chown("opt", 1, 1), chown("opt/a", 1, 1), chown("opt/a/b", 1, 1),
            chown("opt/a/b/file.txt", 1, 1),
        ],
    ],
    "DirectoryPermissionOnCommit": [
        [
            *(make_dir(f"dir{number}", 0o700) for number in range(1, 6)),
            make_file("dir4/f1", "..."), make_file("dir5/f1", "..."),
            *(chown(path, 1, 1) for path in ("dir1", "dir2", "dir3", "dir5", "dir5/f1")),
        ],
        [chown("dir2", 0, 0), remove_all("dir3"), chown("dir4", 1, 1), chown("dir4/f1", 1, 1)],
        [
            make_dir("dir3", 0o700), chown("dir3", 1, 1), remove_all("dir5"),
            make_dir("dir5", 0o700), chown("dir5", 1, 1),
        ],
    ],
    "DeletedFilesInChildSnapshot": [
        [make_file("foo", "foo\n", 0o777), make_file("foobar", "foobar\n", 0o777)],
        [remove_all("foobar")],
        [],
    ],
    "MoveFileFromLowerLayer": [
        [
            make_dir("dir1", 0o700), make_file("dir1/f1", "Hello"), make_dir("dir2", 0o700),
            make_file("dir2/f2", "..."),
        ],
        [
            make_dir("dir3", 0o700), make_file("dir3/f1", "Hello"), remove_all("dir1"),
            link("dir2/f2", "dir3/f2"), remove_all("dir2/f2"),
        ],
    ],
    "Rename": [
        [
            make_dir("dir1", 0o700), make_dir("somefiles", 0o700),
            make_file("somefiles/f1", "was here first!"),
            make_file("somefiles/f2", "nothing interesting"),
        ],
        [
            rename("dir1", "dir2"),
            make_file("somefiles/f1-overwrite", "new content 1"),
            rename("somefiles/f1-overwrite", "somefiles/f1"),
            rename("somefiles/f2", "somefiles/f3"),
        ],
    ],
}  # fmt: skip


@pytest.mark.parametrize("case", LAYERS)
def test_layers_hold_what_was_changed_in_them(shared, tmp_path, case):
    """A tree to which the same is done shows the same, after each commit, in a new mount."""
    _, client = shared
    flat = tmp_path / "flat"
    flat.mkdir()
    parent = ""
    for number, changes in enumerate(LAYERS[case]):
        key = f"{case}-{number}-a"
        with mounted(client.prepare(key, parent), tmp_path / "mnt") as mnt:
            assert tree(mnt) == tree(flat)
            for change in changes:
                change(flat)
                change(mnt)
            assert tree(mnt) == tree(flat)
        parent = f"{case}-{number}"
        client.commit(parent, key)
        with mounted(client.view(f"{parent}-v", parent), tmp_path / "mnt") as mnt:
            assert tree(mnt) == tree(flat)


def test_a_view_can_not_be_written_to(shared, tmp_path):
    _, client = shared
    client.prepare("ro-1-a")
    client.commit("ro-1", "ro-1-a")
    client.prepare("ro-2-a", "ro-1")
    client.commit("ro-2", "ro-2-a")
    for parent in ("ro-1", "ro-2"):
        with (
            mounted(client.view(f"view-{parent}", parent), tmp_path / "mnt") as mnt,
            pytest.raises(OSError, match="Read-only"),
        ):
            (mnt / "new").touch()


def test_128_layers_are_one_tree(shared, tmp_path):
    """As in the suite, but that most layers are written without being mounted."""
    _, client = shared
    flat = tmp_path / "flat"
    flat.mkdir()
    first = [
        make_file("bottom", "way at the bottom\n"), make_file("overwriteme", "FIRST!\n"),
        make_dir("addhere"), make_dir("onlyme"), make_file("onlyme/bottom", "bye!\n"),
    ]  # fmt: skip
    parent = ""
    for number in range(128):
        mounts = client.prepare(f"many-{number}-a", parent)
        write = make_file("overwriteme", f"{number} WAS HERE!\n")
        if number % 16:
            (mount,) = mounts
            (upper,) = [word for word in mount.options if word.startswith("upperdir=")]
            write(tmp_path / upper.removeprefix("upperdir="))
            write(flat)
        else:
            changes = first if number == 0 else [
                write,
                make_file(f"addhere/file-{number}", "same\n", 0o755),
                remove_all("onlyme"), make_dir("onlyme"),
                make_file(f"onlyme/file-{number}", "only me!\n"),
            ]  # fmt: skip
            with mounted(mounts, tmp_path / "mnt") as mnt:
                assert tree(mnt) == tree(flat)
                for change in changes:
                    change(flat)
                    change(mnt)
                assert tree(mnt) == tree(flat)
        parent = f"many-{number}"
        client.commit(parent, f"many-{number}-a")
    with mounted(client.view("many", parent), tmp_path / "mnt") as mnt:
        assert tree(mnt) == tree(flat)


def test_a_container_outlives_a_restart_of_the_snapshotter(process, tmp_path):
    with process.client() as client:
        client.prepare("a")
        client.commit("base", "a")
        mounts = client.prepare("container", "base")
    with mounted(mounts, tmp_path / "mnt") as mnt:
        process.end(signal.SIGKILL)
        (mnt / "file").write_text("x")
        process.start()
        with process.client() as client:
            (mnt / "file").write_text("xy")
            assert client.usage("container").inodes >= 2
    with process.client() as client:
        client.commit("committed", "container")
        with mounted(client.view("v", "committed"), tmp_path / "mnt") as mnt:
            assert (mnt / "file").read_text() == "xy"


def test_what_is_still_mounted_is_not_removed(process, tmp_path):
    with process.client() as client:
        client.prepare("a")
        client.commit("base", "a")
        with mounted(client.prepare("container", "base"), tmp_path / "mnt") as mnt:
            (mnt / "file").write_text("x")
            client.remove("container")
            client.cleanup()
            assert (mnt / "file").read_text() == "x"
            (mnt / "other").write_text("y")
        client.cleanup()
        assert len(directories(process.root)) == 1
    assert "is mounted" in process.said()


@pytest.mark.parametrize("mapped", [True, False])
def test_ids_of_a_container_are_those_of_its_labels(shared, tmp_path, mapped):
    _, client = shared
    labels = {
        "containerd.io/snapshot/uidmapping": "0:100000:65536",
        "containerd.io/snapshot/gidmapping": "0:200000:65536",
    } if mapped else {}  # fmt: skip
    name = f"ids-{mapped}"
    (mount,) = client.prepare(f"{name}-a")
    make_file("file", "x")(tmp_path.__class__(mount.source))
    os.chown(f"{mount.source}/file", 5, 6)
    client.commit(name, f"{name}-a")
    with mounted(client.prepare(f"{name}-c", name, **labels), tmp_path / "mnt") as mnt:
        status = (mnt / "file").stat()
        expected = (100_005, 200_006) if mapped else (5, 6)
        assert (status.st_uid, status.st_gid) == expected
