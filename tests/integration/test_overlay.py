"""`unionfuse-overlay`, called as engines call fuse-overlayfs."""

from __future__ import annotations

import errno
import os
import platform
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.commands import command, overlay, wait_until
from tests.support.mounts import Layers, daemon_pids, is_mounted

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.fuse, pytest.mark.root, pytest.mark.once]


def options(layers: Layers, *more: str) -> str:
    lowers = ":".join(map(str, layers.lowers))
    return ",".join(
        [f"lowerdir={lowers},upperdir={layers.upper},workdir={layers.work}", *more],
    )


def mount(layers: Layers, *more: str, cwd: Path | None = None) -> str:
    """Mount; return what is said."""
    done = overlay("-o", options(layers, *more), layers.mnt, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stderr


def unmount(layers: Layers) -> None:
    """Unmount as containers/storage does, which waits for nobody."""
    subprocess.run(["fusermount3", "-u", layers.mnt], check=True, timeout=30)


@pytest.fixture
def layers(tmp_path):
    layers = Layers.create(tmp_path, 2)
    (layers.lowers[0] / "file").write_text("lower\n")
    yield layers
    if is_mounted(layers.mnt):
        unmount(layers)


class TestMount:
    def test_what_is_asked_at_once_is_answered(self, layers):
        assert mount(layers, "", "volatile") == ""  # and its stderr is at its end
        assert (layers.mnt / "file").read_text() == "lower\n"
        (layers.mnt / "file").write_text("upper\n")
        unmount(layers)
        assert (layers.upper / "file").read_text() == "upper\n"

    def test_it_is_of_nobody_else_s_directory(self, layers):
        mount(layers, cwd=layers.upper)
        (daemon,) = overlay_daemons(layers)
        assert os.readlink(f"/proc/{daemon}/cwd") not in (str(layers.upper), str(layers.mnt))
        unmount(layers)

    def test_paths_are_those_of_the_caller(self, layers, tmp_path):
        names = ":".join(lower.name for lower in layers.lowers)
        done = overlay("-o", f"lowerdir={names}", "overlay", layers.mnt.name, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert (layers.mnt / "file").exists()
        with pytest.raises(OSError, match="Read-only"):
            (layers.mnt / "new").touch()
        unmount(layers)

    def test_the_daemon_ends_with_the_mount(self, layers):
        mount(layers)
        unmount(layers)
        wait_until(lambda: not overlay_daemons(layers))

    def test_an_upper_that_was_just_unmounted_is_mounted_again(self, layers):
        for number in range(5):
            mount(layers, "volatile")
            (layers.mnt / f"new-{number}").write_text("x" * 100_000)
            unmount(layers)
        mount(layers)
        assert len(list(layers.mnt.glob("new-*"))) == 5
        unmount(layers)

    def test_a_union_may_be_a_layer_of_another(self, layers, tmp_path):
        mount(layers)
        other = Layers.create(tmp_path / "other", 1)
        first = f"lowerdir={layers.mnt}:{other.lowers[0]}"
        done = overlay("-o", f"{first},upperdir={other.upper},workdir={other.work}", other.mnt)
        assert done.returncode == 0, done.stderr
        (other.mnt / "file").write_text("above\n")
        assert (layers.mnt / "file").read_text() == "lower\n"
        unmount(other)
        wait_until(lambda: not overlay_daemons(other))
        unmount(layers)


class TestMistakes:
    def test_one_line_says_what_is_wrong(self, layers):
        done = overlay("-o", "lowerdir=/no/such/directory", layers.mnt)
        assert done.returncode == 1
        assert done.stderr == "unionfuse: lower layer /no/such/directory: " + (
            "No such file or directory\n"
        )
        assert not is_mounted(layers.mnt)

    def test_unknown_words_are_told_and_the_mount_is_made(self, layers):
        said = mount(layers, "bogus=3", "private")
        assert said.splitlines() == [
            "unionfuse: unknown option ignored: bogus=3",
            "unionfuse: unknown option ignored: private",
        ]
        unmount(layers)

    def test_a_label_is_no_mistake_where_there_are_none(self, layers):
        mount(layers, 'context="system_u:object_r:container_file_t:s0:c1,c2"')
        unmount(layers)

    def test_an_upper_in_use_is_waited_for(self, layers, tmp_path):
        mount(layers)
        other = tmp_path / "other"
        other.mkdir()
        began = time.monotonic()
        with subprocess.Popen(["sh", "-c", f"sleep 2; fusermount3 -u {layers.mnt}"]):
            done = overlay("-o", options(layers), other)
        assert done.returncode == 0, done.stderr
        assert time.monotonic() - began > 1
        subprocess.run(["fusermount3", "-u", other], check=True, timeout=30)


def overlay_daemons(layers: Layers) -> list[int]:
    return daemon_pids(layers.mnt, word=b"-o")


@pytest.fixture(params=["session=kernel", "session=pyfuse3"])
def session(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class TestWords:
    def test_noxattrs(self, layers, session):
        os.setxattr(layers.lowers[0] / "file", "user.a", b"b")
        mount(layers, session, "noxattrs=1")
        for call in (
            lambda path: os.getxattr(path, "user.a"),
            lambda path: os.setxattr(path, "user.a", b"c"),
            lambda path: os.removexattr(path, "user.a"),
        ):
            for _ in range(2):
                with pytest.raises(OSError, match=os.strerror(errno.EOPNOTSUPP)):
                    call(layers.mnt / "file")
        (layers.mnt / "file").chmod(0o600)
        unmount(layers)
        assert os.getxattr(layers.upper / "file", "user.a") == b"b"

    @pytest.mark.parametrize(("words", "may_read"), [("", True), ("noacl", False)])
    def test_noacl(self, layers, session, words, may_read):
        (layers.lowers[0] / "file").chmod(0o600)
        # pytest's own directory is not for all: the user finds the mount as its working directory
        mount(layers, session, words)
        subprocess.run(["setfacl", "-m", "u:77:r", layers.mnt / "file"], check=True, timeout=30)
        done = subprocess.run(
            ["setpriv", "--reuid=77", "--regid=77", "--clear-groups", "cat", "file"],
            cwd=layers.mnt, capture_output=True, check=False, timeout=30,
        )  # fmt: skip
        assert (done.returncode == 0) is may_read
        unmount(layers)

    def test_uidmapping(self, layers, session):
        mount(layers, session, "uidmapping=:0:100:10,gidmapping=:0:200:10")
        st = (layers.mnt / "file").stat()
        assert (st.st_uid, st.st_gid) == (100, 200)
        os.chown(layers.mnt / "file", 103, 204)
        with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
            os.chown(layers.mnt / "file", 3, 4)
        names = {entry.name: entry.stat().st_uid for entry in os.scandir(layers.mnt)}
        assert names == {"file": 103}
        unmount(layers)
        st = (layers.upper / "file").stat()
        assert (st.st_uid, st.st_gid) == (3, 4)

    def test_squash_to_root(self, layers, session):
        os.chown(layers.lowers[0] / "file", 5, 6)
        mount(layers, session, "squash_to_root,squash_to_gid=7")
        st = (layers.mnt / "file").stat()
        assert (st.st_uid, st.st_gid) == (0, 7)
        unmount(layers)

    def test_static_nlink(self, layers, session):
        mount(layers, session, "static_nlink")
        (layers.mnt / "dir" / "sub").mkdir(parents=True)
        assert (layers.mnt / "dir").stat().st_nlink == 1
        unmount(layers)

    def test_timeout_writeback_and_fsync(self, layers, session):
        mount(layers, session, "timeout=0.5,writeback=0,fsync=0,threaded=1,xino=on,fast_ino=1")
        with open(layers.mnt / "file", "w") as file:
            file.write("new")
            file.flush()
            os.fsync(file.fileno())
        unmount(layers)
        assert (layers.upper / "file").read_text() == "new"


class TestNested:
    """Lowers that hold the upper and the mountpoint, as `lowerdir=/` does."""

    # A union that found itself would hang whoever looks: so another process does.
    @staticmethod
    def find(path: Path) -> list[str]:
        walk = (
            "import os, sys\n"
            "for base, names, files in os.walk(sys.argv[1]):\n"
            "    for name in names + files:\n"
            "        print(os.path.relpath(os.path.join(base, name), sys.argv[1]))\n"
        )
        done = command("timeout", "-k", "1", "20", sys.executable, "-c", walk, path)
        assert done.returncode == 0, done.stderr
        return sorted(done.stdout.split())

    @pytest.mark.parametrize("io", ["cached", "passthrough"])
    def test_a_lower_with_upper_and_mountpoint(self, tmp_path, session, io):
        if (session, io) == ("session=pyfuse3", "passthrough"):
            return  # is refused
        for name in ("file", "x/upper", "x/work", "x/mnt", "x/mnt/hidden"):
            (tmp_path / "low" / name).mkdir(parents=True)
        base = tmp_path / "low" / "x"
        words = f"lowerdir={tmp_path}/low,upperdir={base}/upper,workdir={base}/work"
        done = overlay("-o", f"{words},{session},io={io}", base / "mnt")
        assert done.returncode == 0, done.stderr
        assert "is inside the lower layer" in done.stderr
        try:
            found = self.find(base / "mnt")
            assert {"file", "x/mnt", "x/mnt/hidden", "x/upper"} <= set(found)
            # what is below is what was there, and not the union again
            assert not [
                name for name in found if name.startswith("x/mnt/") and "hidden" not in name
            ]
            (base / "mnt" / "x" / "mnt" / "new").write_text("x")
            (base / "mnt" / "x" / "upper" / "inner").write_text("y")
            assert self.find(base / "mnt" / "x" / "mnt") == ["hidden", "new"]
        finally:
            subprocess.run(["umount", base / "mnt"], check=True, timeout=30)
        assert (base / "upper" / "x" / "mnt" / "new").read_text() == "x"
        assert not (base / "mnt" / "new").exists()

    def test_over_a_lower_itself(self, layers, session):
        lower = layers.lowers[0]
        words = f"lowerdir={lower},upperdir={layers.upper},workdir={layers.work}"
        done = overlay("-o", f"{words},{session}", lower)
        assert (done.returncode, done.stderr) == (0, "")
        try:
            assert self.find(lower) == ["file"]
            (lower / "file").write_text("changed\n")
        finally:
            subprocess.run(["umount", lower], check=True, timeout=30)
        assert (lower / "file").read_text() == "lower\n"

    def test_where_mounts_are_shared(self, layers, session):
        """As on a machine with systemd: what is mounted there shows in every copy of it."""
        (layers.lowers[0] / "mnt").mkdir()
        subprocess.run(["mount", "--bind", layers.lowers[0], layers.lowers[0]], check=True)
        try:
            subprocess.run(["mount", "--make-shared", layers.lowers[0]], check=True, timeout=30)
            mnt = layers.lowers[0] / "mnt"
            done = overlay("-o", f"{options(layers)},{session}", mnt)
            assert done.returncode == 0, done.stderr
            try:
                assert self.find(mnt) == ["file", "mnt"]
            finally:
                subprocess.run(["umount", mnt], check=True, timeout=30)
        finally:
            subprocess.run(["umount", "-R", layers.lowers[0]], check=True, timeout=30)

    @pytest.mark.userns
    def test_in_a_user_namespace_with_the_root_below(self, tmp_path, session):
        for name in ("upper", "work", "mnt"):
            (tmp_path / name).mkdir()
        words = f"lowerdir=/,upperdir={tmp_path}/upper,workdir={tmp_path}/work,{session}"
        code = "from unionfuse.cli.overlay import main; main()"
        script = f"""
            set -e
            "{sys.executable}" -c '{code}' -o {words} {tmp_path}/mnt
            test -e {tmp_path}/mnt/etc/passwd
            ls -A {tmp_path}/mnt{tmp_path}/mnt; echo x > {tmp_path}/mnt/new
            umount {tmp_path}/mnt
        """
        done = command("timeout", "-k", "1", "30", "unshare", "-Urm", "sh", "-c", script)
        assert done.returncode == 0, done.stderr
        assert done.stdout == ""
        assert (tmp_path / "upper" / "new").read_text() == "x\n"

    def test_who_may_not_have_a_view_of_his_own_is_told(self, layers):
        (layers.lowers[0] / "mnt").mkdir()
        code = "from unionfuse.cli.overlay import main; main()"
        drop = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"]
        done = command(*drop, sys.executable, "-c", code, "-o", options(layers),
                       layers.lowers[0] / "mnt")  # fmt: skip
        assert done.returncode == 1
        assert "holds the mountpoint" in done.stderr
        assert not is_mounted(layers.lowers[0] / "mnt")


# Makes the union its root in the daemon's own mount namespace, and goes on to use it.
PIVOT = """
import ctypes, os, signal, subprocess, sys
mount, mnt = sys.argv[1:-1], sys.argv[-1]
subprocess.run(mount, check=True, timeout=60)
libc = ctypes.CDLL(None, use_errno=True)
os.chdir(mnt)
os.mkdir("old")
assert libc.syscall({number}, b".", b"old") == 0, os.strerror(ctypes.get_errno())
os.chdir("/")
os.setxattr("/file", b"user.a", b"b")
assert os.getxattr("/file", b"user.a") == b"b"
os.chmod("/file", 0o600)
os.mkdir("/dir")
os.rename("/file", "/dir/file")
os.unlink("/dir/file")
print("done", flush=True)
"""


def test_the_union_may_become_the_root_of_the_daemon(layers):
    number = {"x86_64": 155}.get(platform.machine(), 41)
    code = "from unionfuse.cli.overlay import main; main()"
    program = [sys.executable, "-c", code, "-o", options(layers), str(layers.mnt)]
    done = command(
        "timeout", "-k", "1", "20", "unshare", "--mount", "--propagation", "private",
        sys.executable, "-c", PIVOT.format(number=number), *program, layers.mnt,
    )  # fmt: skip
    try:
        assert done.stdout == "done\n", done.stderr
    finally:
        for daemon in overlay_daemons(layers):  # the union is its root: neither ends by itself
            os.kill(daemon, signal.SIGKILL)
    wait_until(lambda: not overlay_daemons(layers))
    assert not (layers.upper / "dir" / "file").exists()
