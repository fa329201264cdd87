"""Images are mounted, kept while they are, and made of what was changed in a mount."""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import signal
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING

import pytest

from tests.support.commands import command, unionfuse
from tests.support.images import BASE, CHANGES, archive, layout_files, make_image
from tests.support.mounts import daemon_pids, is_mounted, public_directory
from tests.support.sessions import session_option
from tests.support.users import NOBODY, as_plain_user

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.fuse, pytest.mark.root, pytest.mark.once]

X = "localhost/x:1"


class Stage:
    """A store with one image, and where to mount it."""

    def __init__(self, base: Path) -> None:
        self.store, self.mnt, self.upper = base / "store", base / "mnt", base / "upper"
        for path in (self.mnt, self.upper):
            path.mkdir()
        (base / "x.tar").write_bytes(archive(layout_files((X, make_image(BASE, CHANGES)))))
        self.image("load", base / "x.tar")

    def image(self, *arguments: str | Path, fails: bool = False) -> str:
        done = unionfuse("image", "--root", self.store, *arguments)
        assert (done.returncode != 0) == fails, done.stderr
        return done.stderr if fails else done.stdout

    def umount(self) -> None:
        done = unionfuse("umount", self.mnt)
        assert done.returncode == 0, done.stderr

    def layers(self) -> int:
        return len(list((self.store / "layers").iterdir()))


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path)
    yield made
    if is_mounted(made.mnt):
        unionfuse("umount", "--lazy", made.mnt)


def test_a_mounted_image_is_read_only_without_an_upper(stage: Stage) -> None:
    stage.image("mount", X, stage.mnt)
    assert (stage.mnt / "etc/name").read_text() == "changed\n"
    assert not (stage.mnt / "gone").exists()
    with pytest.raises(OSError, match="Read-only"):
        (stage.mnt / "new").touch()
    stage.umount()


def test_mount_takes_an_image_in_place_of_lowers(stage: Stage) -> None:
    done = unionfuse(
        "mount", f"image:{X}", stage.upper, stage.mnt, env={"UNIONFUSE_ROOT": str(stage.store)}
    )
    assert done.returncode == 0, done.stderr
    (stage.mnt / "new").write_text("new\n")
    stage.umount()
    assert (stage.upper / "new").read_text() == "new\n"


def test_layers_stay_while_they_are_mounted(stage: Stage) -> None:
    stage.image("mount", X, stage.mnt)
    stage.image("rm", X)
    stage.image("gc")
    assert stage.layers() == 2
    assert (stage.mnt / "etc/name").read_text() == "changed\n"
    stage.umount()
    stage.image("gc")
    assert stage.layers() == 0


def test_layers_of_a_mount_whose_daemon_was_killed_are_let_go(stage: Stage) -> None:
    stage.image("mount", X, stage.mnt)
    [pid] = daemon_pids(stage.mnt)
    os.kill(pid, signal.SIGKILL)
    done = unionfuse("umount", "--lazy", stage.mnt)
    assert done.returncode == 0, done.stderr
    stage.image("rm", X)
    assert stage.layers() == 0


def test_a_mount_that_fails_holds_nothing(stage: Stage) -> None:
    said = stage.image("mount", X, stage.mnt / "missing", fails=True)
    assert said.count("\n") == 1
    stage.image("rm", X)
    assert stage.layers() == 0


@pytest.mark.parametrize("options", [(), ("--io", "cached", "-o", "writeback=1")], ids=str)
def test_a_mounted_upper_is_committed_with_all_that_was_written(
    stage: Stage, options: tuple[str, ...]
) -> None:
    stage.image("mount", *options, X, stage.mnt, "--upper", stage.upper)
    data = os.urandom(3_000_000)
    with (stage.mnt / "data").open("wb") as file:  # and not closed: nothing is flushed
        file.write(data)
        file.flush()
        (stage.mnt / "etc/name").unlink()
        stage.image("commit", stage.upper, "localhost/y:1")
    stage.umount()
    assert stage.image("diff", X, "localhost/y:1") == "A /data\nC /etc\nD /etc/name\n"
    with tarfile.open(fileobj=io.BytesIO(exported(stage, "localhost/y:1"))) as tar:
        member = tar.extractfile("data")
        assert member is not None
        assert member.read() == data


def exported(stage: Stage, name: str) -> bytes:
    stage.image("export", name, "-o", stage.store / "export.tar")
    return (stage.store / "export.tar").read_bytes()


def test_the_image_below_an_upper_is_known_when_it_is_not_mounted_any_more(stage: Stage) -> None:
    stage.image("mount", X, stage.mnt, "--upper", stage.upper)
    (stage.mnt / "new").write_text("new\n")
    stage.umount()
    stage.image("commit", stage.upper, "localhost/y:1")
    assert stage.image("diff", X, "localhost/y:1") == "A /new\n"


def test_a_renamed_directory_is_committed_whole(stage: Stage) -> None:
    stage.image("mount", X, stage.mnt, "--upper", stage.upper)
    (stage.mnt / "etc").rename(stage.mnt / "moved")
    stage.image("commit", stage.upper, "localhost/y:1")
    stage.umount()
    found = stage.image("diff", X, "localhost/y:1")
    assert found == "D /etc\nA /moved\nA /moved/name\n"


@pytest.fixture
def small_store(tmp_path: Path) -> Iterator[Path]:
    """A store with 2 MiB of room."""
    room = tmp_path / "room"
    room.mkdir()
    options = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(room)]
    subprocess.run(options, check=True, timeout=30)
    yield room / "store"
    subprocess.run(["umount", "-l", str(room)], check=True, timeout=30)


def test_a_full_disk_is_told_and_nothing_is_lost(small_store: Path, tmp_path: Path) -> None:
    def image(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return unionfuse("image", "--root", small_store, *arguments)

    for name, size in (("small", 1000), ("large", 1_500_000)):
        made = make_image({"./": None, "file": os.urandom(size)})
        (tmp_path / f"{name}.tar").write_bytes(archive(layout_files((f"localhost/{name}:1", made))))
    assert image("load", tmp_path / "small.tar").returncode == 0
    done = image("load", tmp_path / "large.tar")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "no room" in done.stderr
    assert image("verify").stdout == "3 blobs and 1 layers verified\n"
    assert image("rm", "localhost/small:1").returncode == 0


@pytest.mark.parametrize("verb", ["rm", "gc"])
def test_room_can_be_made_where_there_is_none(small_store: Path, tmp_path: Path, verb: str) -> None:
    def image(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return unionfuse("image", "--root", small_store, *arguments)

    made = make_image({"./": None, "file": os.urandom(100_000)})
    (tmp_path / "x.tar").write_bytes(archive(layout_files(("localhost/x:1", made))))
    assert image("load", tmp_path / "x.tar").returncode == 0
    if verb == "gc":
        assert image("rm", "--keep-layers", "localhost/x:1").returncode == 0
        image("ls")  # has the room that rm needs put aside again
    with contextlib.suppress(OSError), (small_store / "fill").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(512))
    done = image(verb, *(["localhost/x:1"] if verb == "rm" else []))
    assert (done.returncode, done.stderr) == (0, "")
    assert "freed 2" in done.stdout  # kB
    assert image("verify").stdout == "0 blobs and 0 layers verified\n"


def test_without_subordinate_ids_owners_are_shown_by_the_mount() -> None:
    with public_directory() as base:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            for name, kind, mode in (
                (".", tarfile.DIRTYPE, 0o755),
                ("file", tarfile.REGTYPE, 0o640),
            ):
                info = tarfile.TarInfo(name)
                info.type, info.mode, info.uid, info.gid = kind, mode, 7, 8
                tar.addfile(info)
        (base / "rootfs.tar").write_bytes(out.getvalue())
        (base / "mnt").mkdir()
        os.chown(base, NOBODY, NOBODY)
        os.chown(base / "mnt", NOBODY, NOBODY)
        python = shlex.quote(sys.executable)
        session = " ".join(session_option())
        script = f"""
            cd {base}; export UNIONFUSE_ROOT={base}/store UNIONFUSE_NO_USERNS=1
            image() {{ {python} -m unionfuse image "$@"; }}
            image import rootfs.tar {X} >&2
            image mount {session} {X} {base}/mnt
            stat -c '%u:%g %a' mnt/file
            {python} -m unionfuse umount {base}/mnt
            image export {X} -o export.tar
            image verify >&2
            tar -tvf export.tar --numeric-owner
        """
        done = command("sh", "-euc", script, prefix=as_plain_user(), timeout=60)
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        assert lines[0] == "7:8 640"
        assert lines[2].startswith("-rw-r----- 7/8")
