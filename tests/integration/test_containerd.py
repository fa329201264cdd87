"""containerd on `unionfuse snapshotter`: import, pull, run, diff, and what it leaves.

What it makes is compared with what it makes on its own overlayfs snapshotter.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING

import pytest

from tests.support import clients
from tests.support import containerd as support
from tests.support.commands import wait_until
from tests.support.containerd import layer
from tests.support.mounts import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.containerd import Containerd

pytestmark = [
    pytest.mark.clients,
    pytest.mark.fuse,
    pytest.mark.root,
    pytest.mark.once,
    pytest.mark.timeout(300),
]

IMAGE = "localhost/layers:1"
SNAPSHOTTERS = ("unionfuse", "overlayfs")
CHANGES = """
set -e
echo new > /new; mkdir -p /dir/sub; echo x > /dir/sub/file; ln -s new /link; ln /new /hard
rm /etc/group; echo user2:x:5:5::/:/bin/sh >> /etc/passwd; chmod 600 /etc/passwd
chown 5:6 /root; rm -r /var/log; mkdir /var/log; echo again > /var/log/file
touch -d @1000000000 /tmp/old; chmod 4755 /new; mkfifo /fifo
"""


@pytest.fixture(scope="module")
def ctd() -> Iterator[Containerd]:
    with clients.temporary_house() as house, support.containerd(house) as made:
        base = house.base
        layers = [
            base / "busybox.tar",
            layer(
                base / "two.tar",
                ("bin/.wh.vi", ""), ("a", None), ("a/one", "1"), ("a/two", "2"),
                ("etc/passwd", "root:x:0:0:root:/:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n"),
            ),
            layer(
                base / "three.tar",
                ("a", None), ("a/.wh..wh..opq", ""), ("a/three", "3"), ("usr/.wh.bin", ""),
            ),
        ]  # fmt: skip
        archive = support.image(base, IMAGE, layers)
        for snapshotter in SNAPSHOTTERS:
            made.ctr("images", "import", "--snapshotter", snapshotter, archive)
        yield made


@pytest.fixture(autouse=True)
def _leaves_nothing(ctd: Containerd) -> Iterator[None]:
    yield
    wait_until(lambda: not ctd.daemons())
    assert ctd.mounts() == []


def tree(tar: Path) -> dict[str, tuple[object, ...]]:
    """Return what is in a tar, by name, but for times of what the test has made."""
    with tarfile.open(tar) as archive:
        return {
            member.name: (
                member.type, member.mode, member.uid, member.gid, member.linkname,
                b"" if not member.isreg() else archive.extractfile(member).read(),
            )
            for member in archive
        }  # fmt: skip


def shown(ctd: Containerd, snapshotter: str) -> dict[str, tuple[object, ...]]:
    """Return the tree of the image on a snapshotter."""
    target, tar = ctd.base / "mnt", ctd.base / "shown.tar"
    target.mkdir(exist_ok=True)
    ctd.ctr("images", "mount", "--snapshotter", snapshotter, IMAGE, target)
    command = ctd.house.enter("tar", "--sort=name", "-C", target, "-cf", tar, ".")
    subprocess.run(command, check=True, timeout=60)
    ctd.ctr("images", "unmount", "--rm", "--snapshotter", snapshotter, target)
    return tree(tar)


class TestImages:
    def test_layers_show_what_they_do_on_overlayfs(self, ctd):
        ours, theirs = (shown(ctd, snapshotter) for snapshotter in SNAPSHOTTERS)
        assert ours == theirs
        assert "./a/three" in ours
        assert not {"./a/one", "./bin/vi", "./usr/bin"} & ours.keys()

    def test_an_image_is_pushed_and_pulled(self, ctd):
        with support.registry(ctd.base) as host:
            name = f"{host}/layers:1"
            ctd.ctr("images", "tag", IMAGE, name)
            ctd.ctr("images", "push", "--plain-http", name)
            for image in (name, IMAGE):  # and with it its snapshots
                ctd.ctr("images", "rm", "--sync", image)
            wait_until(lambda: not ctd.snapshots())
            ctd.ctr("images", "pull", "--plain-http", "--snapshotter", "unionfuse", name)
            assert ctd.run(name, "cat", "/a/three") == "3"
            ctd.ctr("images", "pull", "--plain-http", "--snapshotter", "overlayfs", name)
            ctd.ctr("images", "tag", name, IMAGE)
            ctd.ctr("images", "rm", name)

    def test_usage_is_told_for_each_layer(self, ctd):
        lines = ctd.ctr("snapshots", "--snapshotter", "unionfuse", "usage").splitlines()[1:]
        assert len(lines) == 3
        assert any("MiB" in line for line in lines)  # busybox


class TestContainers:
    def test_a_container_sees_the_image_and_keeps_changes_to_itself(self, ctd):
        script = "rm /bin/ls; echo x > /x; cat /a/three /x; mount | head -1"
        said = ctd.run(IMAGE, "sh", "-c", script)
        assert said.startswith("3x\n")
        assert "overlay on / type fuse.unionfuse (rw,noatime," in said
        assert ctd.run(IMAGE, "ls", "/bin/ls").strip() == "/bin/ls"

    def test_the_root_is_read_only_if_asked(self, ctd):
        said = ctd.run(IMAGE, "sh", "-c", "touch /x 2>&1 || true", options=("--read-only",))
        assert "Read-only" in said

    def test_a_user_is_a_user(self, ctd):
        said = ctd.run(IMAGE, "su", "user", "-c", "id -u; touch /x 2>&1 || true")
        assert said.startswith("1000\n")
        assert "denied" in said

    def test_a_user_namespace_has_the_image_mapped_into_it(self, ctd):
        """By labels: other snapshotters copy the whole image and change its owners."""
        options = ("--uidmap", "0:100000:65536", "--gidmap", "0:200000:65536", "--remap-labels")
        script = "touch /new; chown 5:6 /new; stat -c '%u:%g' /new /bin/sh; cat /proc/self/uid_map"
        said = ctd.run(IMAGE, "sh", "-c", script, options=options).split()
        assert said == ["5:6", "0:0", "0", "100000", "65536"]

    def test_a_container_outlives_the_snapshotter(self, ctd):
        arguments = ("run", "-d", "--snapshotter", "unionfuse", IMAGE, "kept", "sleep", "100")
        ctd.ctr(*arguments)
        execute = ("tasks", "exec", "--exec-id", "e")
        ctd.kill_snapshotter()
        assert ctd.ctr(*execute, "kept", "sh", "-c", "echo x > /x; cat /x") == "x\n"
        ctd.start_snapshotter()
        assert ctd.ctr(*execute, "kept", "cat", "/x") == "x\n"
        # for some seconds containerd does not try again what was refused
        wait_until(
            lambda: "kept" in ctd.ctr("snapshots", "--snapshotter", "unionfuse", "ls", check=False)
        )
        ctd.ctr("tasks", "kill", "--signal", "KILL", "kept")
        wait_until(lambda: "STOPPED" in ctd.ctr("tasks", "ls"))
        ctd.ctr("tasks", "rm", "kept")
        ctd.ctr("containers", "rm", "kept")

    def test_changes_are_those_of_overlayfs(self, ctd):
        seen = []
        for snapshotter in SNAPSHOTTERS:
            name = f"changed-{snapshotter}"
            ctd.ctr("run", "--snapshotter", snapshotter, IMAGE, name, "sh", "-c", CHANGES)
            ctd.ctr("tasks", "rm", name, check=False)
            tar = ctd.base / f"{name}.tar"
            said = ctd.house.enter(
                "sh", "-c",
                f"ctr -a {ctd.base}/containerd.sock snapshots --snapshotter {snapshotter} "
                f"diff {name} | gzip -dc > {tar}",
            )  # fmt: skip
            environment = {**os.environ, "PATH": f"{ctd.base.parent}:{os.environ['PATH']}"}
            subprocess.run(said, check=True, timeout=60, env=environment)
            seen.append(tree(tar))
            ctd.ctr("containers", "rm", name)
        ours, theirs = seen
        assert ours == theirs
        assert {"etc/.wh.group", "new", "fifo", "var/log/file"} <= ours.keys()

    def test_a_root_of_mount_8_is_one(self, ctd):
        """Without the snapshotter: a union that the helper of mount(8) has made."""
        base = ctd.base / "by-hand"
        for name in ("low", "up", "work", "mnt"):
            (base / name).mkdir(parents=True)
        subprocess.run(["tar", "-C", base / "low", "-xf", ctd.base.parent / "busybox.tar"],
                       check=True, timeout=60)  # fmt: skip
        options = f"lowerdir={base}/low,upperdir={base}/up,workdir={base}/work"
        environment = f"PATH={ctd.base.parent}:{os.environ['PATH']}:/usr/sbin"
        command = ["env", environment, "mount.fuse3", "overlay", base / "mnt", "-o", options,
                   "-t", "unionfuse-overlay"]  # fmt: skip
        subprocess.run(ctd.house.enter(*command), check=True, timeout=60)
        try:
            script = ("/bin/sh", "-c", "echo x > /x; /bin/cat /x")
            assert ctd.ctr("run", "--rm", "--rootfs", base / "mnt", "hand", *script) == "x\n"
        finally:
            subprocess.run(ctd.house.enter("umount", base / "mnt"), check=True, timeout=60)
        assert (base / "up" / "x").read_text() == "x\n"

    @pytest.mark.timeout(900)
    def test_containers_in_a_row_leave_nothing(self, ctd):
        before = sorted(ctd.snapshots())
        for _ in range(int(os.environ.get("UNIONFUSE_TEST_CONTAINERS", "5"))):
            ctd.run(IMAGE, "true")
            assert ctd.mounts() == []
        wait_until(lambda: not ctd.daemons())
        wait_until(lambda: len(ctd.snapshots()) == len(before), seconds=30)


# Run by a plain user, as root of a user namespace of his.
ROOTLESS = """
import os, subprocess, sys
package, base = sys.argv[1:]
sys.path.insert(0, package)
from pathlib import Path
from tests.support.snapshots import Process
from tests.integration.test_snapshotter import mounted
process = Process(Path(base))
process.start()
try:
    with process.client() as client:
        for number, parent in enumerate(("", "l0", "l1")):
            with mounted(client.prepare("key", parent), Path(base, "mnt")) as mnt:
                if parent:
                    os.rename(mnt / f"dir{number - 1}", mnt / f"dir{number}")
                else:
                    (mnt / "dir0").mkdir()
                    (mnt / "dir0" / "file").write_text("text")
                (mnt / f"file{number}").write_text("x")
            client.commit(f"l{number}", "key")
        with mounted(client.view("view", "l2"), Path(base, "mnt")) as mnt:
            print(sorted(os.listdir(mnt)), (mnt / "dir2" / "file").read_text())
finally:
    process.end()
"""


def test_a_plain_user_has_a_snapshotter_in_his_user_namespace(ctd):
    base = ctd.base.parent / "user"
    base.mkdir()
    os.chown(base, clients.UID, clients.UID)
    who = ("setpriv", f"--reuid={clients.USER}", f"--regid={clients.USER}", "--init-groups")
    command = ctd.house.enter(
        "env", "-C", "/", f"PATH={ctd.base.parent}:{os.environ['PATH']}:/usr/sbin",
        *who, "--inh-caps=-all", "unshare", "-Urm",
        sys.executable, "-c", ROOTLESS, REPOSITORY, base,
    )  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=90)
    assert done.stdout == "['dir2', 'file0', 'file1', 'file2'] text\n", done.stderr


def test_programs_are_there() -> None:
    """What these tests need is in tools/setup."""
    for program in ("containerd", "ctr", "runc", "docker-registry", "mount.fuse3"):
        path = os.environ["PATH"] + ":/usr/sbin:/sbin"
        assert shutil.which(program, path=path), program
