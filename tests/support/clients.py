"""Run real container engines, as root and as a plain user, and leave the machine as it is.

All that they need and a machine may lack (a cgroup layout that their runtimes take, devices that a
user may open, a user with subordinate ids) is mounted in a mount namespace of the tests' own.
Images are made here: there is no network.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.users import reaching

if TYPE_CHECKING:
    from collections.abc import Iterator

USER, UID = "unionfusetest", 64_321
SUBIDS = (1_000_000, 65_536)
TIMEOUT = 120.0
_SERVER = b"unionfuse-forkserver\0"
FUSE_OVERLAYFS = Path("/usr/bin/fuse-overlayfs")

_PROGRAM = """\
#!{python}
import sys
sys.path.insert(0, "{package}")
from unionfuse.cli{module} import main
main()
"""
_STORAGE = """\
[storage]
driver = "overlay"
runroot = "{base}/run"
graphroot = "{base}/graph"
rootless_storage_path = "{base}/graph"
[storage.options.overlay]
{mount_program}
{more}
"""
# Root's engines ask for limits that need CAP_SYS_RESOURCE, which a container or a VM may lack.
_CONTAINERS = """\
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
runtime = "crun"
lock_type = "file"
tmp_dir = "{base}/tmp"
"""
_POLICY = '{"default": [{"type": "insecureAcceptAnything"}]}'


@dataclass(frozen=True)
class House:
    """A mount namespace in which engines run.

    Attributes:
        base: a directory of it, which every user may enter.
        pid: of the process that holds it.
    """

    base: Path
    pid: int

    def enter(self, *command: str | Path) -> list[str]:
        """Return the command that runs `command` there as root."""
        return ["nsenter", "--target", str(self.pid), "--mount", *map(str, command)]


@contextlib.contextmanager
def house(base: Path) -> Iterator[House]:
    """Make a namespace for engines; `base` is an empty directory that every user may enter."""
    etc = base / "etc"
    etc.mkdir()
    for name, line in (
        ("passwd", f"{USER}:x:{UID}:{UID}::{base}/home:/bin/sh"),
        ("group", f"{USER}:x:{UID}:"),
        ("subuid", f"{USER}:{SUBIDS[0]}:{SUBIDS[1]}"),
        ("subgid", f"{USER}:{SUBIDS[0]}:{SUBIDS[1]}"),
    ):
        whole = Path("/etc", name)
        before = whole.read_text() if whole.exists() else ""
        (etc / name).write_text(f"{before}{line}\n")
    (base / "policy.json").write_text(_POLICY)
    script = _house_script(base)
    holder = subprocess.Popen(
        ["unshare", "--mount", "--propagation", "private", "sh", "-euc", script],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"ready\n", "the namespace could not be made"
        yield House(base, holder.pid)
    finally:
        os.killpg(holder.pid, signal.SIGKILL)
        holder.communicate(timeout=30)


@contextlib.contextmanager
def temporary_house() -> Iterator[House]:
    """Make a namespace for engines at a directory of its own, in which there is a `busybox.tar`."""
    base = Path(tempfile.mkdtemp(prefix="uf.", dir="/tmp"))  # sockets' paths have to be short
    base.chmod(0o755)
    try:
        with house(base) as made:
            busybox_rootfs(base)
            yield made
    finally:
        shutil.rmtree(base, ignore_errors=True)


def _house_script(base: Path) -> str:
    lines = [
        # crun takes no hybrid of both versions
        "if mountpoint -q /sys/fs/cgroup/unified; then umount /sys/fs/cgroup/unified; fi",
        f"mkdir '{base}/dev'; mount -t tmpfs -o mode=755 devices '{base}/dev'",
    ]
    devices = (
        ("fuse", "10 229", "/dev/fuse"),
        ("tun", "10 200", "/dev/net/tun"),
        ("null", "1 3", "/dev/null"),  # crun gives it to the root of a container with mapped ids
    )
    for name, numbers, path in devices:
        device = f"'{base}/dev/{name}'"
        lines.append(f"mknod -m 666 {device} c {numbers}")
        lines.append(f"if [ -e {path} ]; then mount --bind {device} {path}; fi")
    for name in ("passwd", "group", "subuid", "subgid"):
        target = f"/etc/{name}"
        lines.append(
            f"[ -e {target} ] || touch {target}; mount --bind '{base}/etc/{name}' {target}"
        )
    lines += [reaching(Path(__file__).resolve().parents[2]), "echo ready", "exec sleep 3600"]
    return "\n".join(lines)


@dataclass(frozen=True)
class Engine:
    """podman and buildah of one user, with a store of their own.

    Attributes:
        base: where the store is, and the configuration.
        is_root: whether they run as root, or as `USER`.
    """

    house: House
    base: Path
    is_root: bool

    def run(
        self, *command: str | Path, timeout: float = TIMEOUT, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as this user."""
        # A file and not a pipe: what goes on in the background must not hold us up.
        with open(self.base / "output", "w+b") as output:
            done = subprocess.run(
                ["timeout", "-k", "5", str(timeout), *self.command(*command)],
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, check=False,
            )  # fmt: skip
            output.seek(0)
            said = output.read().decode(errors="backslashreplace")
        if check:
            assert done.returncode == 0, f"{' '.join(map(str, command))}: {done.returncode}\n{said}"
        return subprocess.CompletedProcess(done.args, done.returncode, said)

    def podman(self, *arguments: str | Path, timeout: float = TIMEOUT, check: bool = True) -> str:
        """Run podman; return what it prints."""
        return self.run("podman", *arguments, timeout=timeout, check=check).stdout

    def buildah(self, *arguments: str | Path, timeout: float = TIMEOUT) -> str:
        """Run buildah; return what it prints."""
        return self.run("buildah", *arguments, timeout=timeout).stdout

    def command(self, *command: str | Path) -> list[str]:
        """Return the command that runs `command` as this user."""
        environment = {
            "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin",
            "HOME": str(self.base / "home"),
            "XDG_RUNTIME_DIR": str(self.base / "runtime"),
            "CONTAINERS_STORAGE_CONF": str(self.base / "storage.conf"),
            "CONTAINERS_CONF": str(self.base / "containers.conf"),
            "BUILDAH_ISOLATION": "chroot",
            "LC_ALL": "C.UTF-8",
            "TMPDIR": str(self.base / "tmp"),
            "UNIONFUSE_FORKSERVER_SECONDS": "10",
            "PYTHON_OF_ENGINE": str(self.base),  # a fork server of its own
        }
        who = [] if self.is_root else [
            "setpriv", f"--reuid={USER}", f"--regid={USER}", "--init-groups", "--inh-caps=-all",
        ]  # fmt: skip
        assigned = [f"{key}={value}" for key, value in environment.items()]
        where = ["env", "-C", str(self.base), "-i", *assigned]
        return self.house.enter(*where, *who, *map(str, command))

    def mounts(self) -> list[str]:
        """Return the mounts of the store's containers that are there now."""
        seen = Path(f"/proc/{self.house.pid}/mountinfo").read_text().splitlines()
        points = [line.split()[4] for line in seen]
        return [point for point in points if point.startswith(f"{self.base}/graph/overlay/")]

    def daemons(self) -> list[int]:
        """Return the processes that have the store on their command line."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if f"{self.base}/graph/overlay/".encode() in (process / "cmdline").read_bytes():
                    found.append(int(process.name))
        return found

    def servers(self) -> list[int]:
        """Return the fork servers of these engines."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                is_server = (process / "cmdline").read_bytes().startswith(_SERVER)
                if is_server and os.fsencode(self.base) in (process / "environ").read_bytes():
                    found.append(int(process.name))
        return found


@contextlib.contextmanager
def engine(
    house: House, name: str, *, is_root: bool, program: Path | None, more: str = ""
) -> Iterator[Engine]:
    """Make a store under `name` and yield the engines on it.

    Args:
        house: where they run.
        name: of the directory.
        is_root: whether they run as root.
        program: the mount program; None for the kernel's overlayfs.
        more: lines of `[storage.options.overlay]` in storage.conf.
    """
    base = house.base / name
    mount_program = "" if program is None else f'mount_program = "{program}"'
    for directory in (base, base / "home", base / "runtime", base / "tmp"):
        directory.mkdir(mode=0o755)
    config = base / "home" / ".config" / "containers"
    config.mkdir(parents=True)
    shutil.copy(house.base / "policy.json", config)
    (base / "storage.conf").write_text(
        _STORAGE.format(base=base, mount_program=mount_program, more=more)
    )
    (base / "containers.conf").write_text(_CONTAINERS.format(base=base))
    if not is_root:
        subprocess.run(["chown", "-R", f"{UID}:{UID}", base], check=True, timeout=30)
        (base / "runtime").chmod(0o700)
    running = Engine(house, base, is_root)
    try:
        yield running
    finally:
        running.run("podman", "rm", "--all", "--force", "--time=0", check=False)
        for pause in base.rglob("pause.pid"):  # holds the user namespace of a rootless podman
            with contextlib.suppress(OSError, ValueError):
                os.kill(int(pause.read_text()), signal.SIGKILL)
        deadline = time.monotonic() + 10
        while running.daemons() and time.monotonic() < deadline:
            time.sleep(0.05)


def use_program(engine: Engine, program: Path | None) -> None:
    """Have an engine that is there call another mount program from now on; None for none."""
    config = engine.base / "storage.conf"
    lines = config.read_text().splitlines()
    wanted = "" if program is None else f'mount_program = "{program}"'
    new = [wanted if "mount_program" in line else line for line in lines]
    whole = config.with_suffix(".new")
    whole.write_text("\n".join(new))
    whole.replace(config)  # at once: what cleans up behind the last container may be reading it


def mount_program(base: Path) -> Path:
    """Make a `unionfuse-overlay` that every user may run; return it."""
    return make_program(base, "unionfuse-overlay", ".overlay")


def make_program(base: Path, name: str, module: str = "") -> Path:
    """Make a program that runs the `main` of a module below `unionfuse.cli`; return it."""
    path, package = base / name, Path(__file__).resolve().parents[2]
    path.write_text(_PROGRAM.format(python=sys.executable, package=package, module=module))
    path.chmod(0o755)
    return path


@functools.cache
def busybox() -> Path:
    """Return a static busybox, of the package busybox-static."""
    for path in ("/bin/busybox", "/usr/bin/busybox"):
        if os.path.exists(path):
            return Path(path)
    raise FileNotFoundError("there is no busybox")


def busybox_rootfs(base: Path) -> Path:
    """Make a tar of a small root filesystem; return it."""
    root = base / "rootfs"
    for name in ("bin", "etc", "proc", "sys", "dev", "tmp", "root", "run", "usr/bin", "var/log"):
        (root / name).mkdir(parents=True)
    shutil.copy(busybox(), root / "bin" / "busybox")
    applets = subprocess.run([busybox(), "--list"], capture_output=True, text=True, check=True)
    for applet in applets.stdout.split():
        if applet != "busybox":
            os.link(root / "bin" / "busybox", root / "bin" / applet)
    (root / "etc" / "passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n"
    )
    (root / "etc" / "group").write_text("root:x:0:\nuser:x:1000:\n")
    (root / "tmp").chmod(0o1777)
    tar = base / "busybox.tar"
    owner = ["--owner=0", "--group=0", "--numeric-owner", "--sort=name"]
    subprocess.run(["tar", "-C", root, "-cf", tar, *owner, "."], check=True, timeout=60)
    shutil.rmtree(root)
    tar.chmod(0o644)
    return tar
