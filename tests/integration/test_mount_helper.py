"""mount(8) mounts a union, by the helper that it looks for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.mounts import Layers

pytestmark = [pytest.mark.fuse, pytest.mark.root, pytest.mark.once]

HELPERS = {
    Path("/sbin/mount.fuse.unionfusetest"): "mount_helper",
    Path("/sbin/umount.fuse.unionfusetest"): "umount_helper",
}


@pytest.fixture
def layers(tmp_path):
    layers = Layers.create(tmp_path, 2)
    for number, lower in enumerate(layers.lowers):
        (lower / f"file-{number}").write_text(f"{number}\n")
    return layers


@pytest.fixture(autouse=True)
def _helpers():
    """Install the helpers where mount(8) and umount(8) look for them, under a name of the tests."""
    for path, module in HELPERS.items():
        code = f"from unionfuse.cli.{module} import main; main()"
        path.write_text(f"#!{sys.executable}\n{code}\n")
        path.chmod(0o755)
    yield
    for path in HELPERS:
        path.unlink()


def run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr


def words(layers: Layers, *more: str) -> str:
    lowers = ":".join(map(str, layers.lowers))
    return ",".join([f"lowerdir={lowers}", *more])


def writable(layers: Layers, *more: str) -> str:
    return words(layers, f"upperdir={layers.upper}", f"workdir={layers.work}", *more)


def mount(layers: Layers, options: str, source: str = "none") -> list[str]:
    """Mount, and return what the mount table says of it."""
    run("mount", "-t", "fuse.unionfusetest", source, layers.mnt, "-o", options)
    return next(
        line.split()[:4]
        for line in Path("/proc/mounts").read_text().splitlines()
        if line.split()[1] == str(layers.mnt)
    )


class TestMount:
    def test_it_serves_when_mount_returns(self, layers):
        source, _, _, flags = mount(layers, writable(layers, "rw,noatime"), "some-source")
        assert source == "some-source"
        assert {"rw", "noatime"} <= set(flags.split(","))
        assert sorted(path.name for path in layers.mnt.iterdir()) == ["file-0", "file-1"]
        (layers.mnt / "new").touch()
        run("umount", layers.mnt)
        assert (layers.upper / "new").exists()

    def test_its_name_and_type_can_be_chosen(self, layers):
        source, _, fstype, _ = mount(layers, words(layers, "fsname=a,subtype=b"))
        assert (source, fstype) == ("a", "fuse.b")
        run("umount", layers.mnt)

    def test_the_source_may_be_the_layers(self, layers):
        source, *_ = mount(layers, "ro", ":".join(map(str, layers.lowers)))
        assert (layers.mnt / "file-1").read_text() == "1\n"
        assert source == "unionfuse"
        run("umount", layers.mnt)

    def test_how_it_is_served_can_be_chosen(self, layers):
        mount(layers, writable(layers, "session=kernel,io=passthrough"))
        assert (layers.mnt / "file-0").read_text() == "0\n"
        run("umount", layers.mnt)

    def test_words_of_fstab_are_no_matter(self, layers):
        mount(layers, words(layers, "nofail,_netdev,x-systemd.automount,user"))
        run("umount", layers.mnt)

    def test_after_umount_it_can_be_mounted_again_at_once(self, layers):
        for number in range(5):
            mount(layers, writable(layers))
            (layers.mnt / f"new-{number}").touch()
            run("umount", layers.mnt)
        assert len(list(layers.upper.iterdir())) == 5

    def test_a_remount_changes_the_flags(self, layers):
        mount(layers, writable(layers))
        run("mount", "-o", "remount,ro", layers.mnt)
        with pytest.raises(OSError, match="Read-only"):
            (layers.mnt / "new").touch()
        run("mount", "-o", "remount,rw", layers.mnt)
        (layers.mnt / "new").touch()
        run("umount", layers.mnt)

    def test_a_mistake_is_one_line_and_a_code(self, layers):
        command = ["mount", "-t", "fuse.unionfusetest", "none", layers.mnt, "-o"]
        done = subprocess.run(
            [*command, writable(layers, "nonsense")], capture_output=True, text=True, check=False
        )
        assert done.returncode != 0
        assert done.stderr == "unionfuse: unknown mount option: nonsense\n"

    def test_a_way_of_data_that_is_none_is_refused(self, layers):
        command = ["mount", "-t", "fuse.unionfusetest", "none", layers.mnt, "-o"]
        done = subprocess.run(
            [*command, writable(layers, "io=fast")], capture_output=True, text=True, check=False
        )
        assert done.returncode != 0
        assert "io is to be one of auto, cached, passthrough: fast" in done.stderr


class TestUmount:
    """umount(8) reads the type from the mount table where an option is none of the kernel's."""

    def test_when_it_returns_the_filesystem_of_the_layers_can_be_unmounted(self, tmp_path):
        base = tmp_path / "filesystem"
        base.mkdir()
        for _ in range(5):
            run("mount", "-t", "tmpfs", "tmpfs", base)
            layers = Layers.create(base / "union", 1)
            mount(layers, writable(layers, "x-wait"))
            (layers.mnt / "new").write_bytes(bytes(1 << 20))
            run("umount", layers.mnt)
            run("umount", base)

    def test_a_busy_mount_stays(self, layers):
        mount(layers, writable(layers, "x-wait"))
        with open(layers.mnt / "file-0"):
            command = ["umount", layers.mnt]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode != 0
        assert "in use" in done.stderr
        run("umount", layers.mnt)

    def test_one_with_a_user_can_be_unmounted_lazily(self, layers):
        mount(layers, writable(layers, "x-wait"))
        with open(layers.mnt / "file-0") as file:
            run("umount", "-l", layers.mnt)
            assert file.read() == "0\n"

    def test_the_namespace_is_to_be_entered_before(self, layers):
        helper = next(path for path in HELPERS if path.name.startswith("umount"))
        command = [helper, layers.mnt, "-N", "/proc/1/ns/mnt"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert done.stderr.startswith("unionfuse: -N: run umount in that namespace")
