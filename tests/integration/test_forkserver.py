"""An engine that mounts again and again has its mounts made by children of a fork server."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.commands import command, wait_until
from tests.support.mounts import Layers, is_mounted

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.fuse, pytest.mark.root, pytest.mark.once, pytest.mark.timeout(90)]

MAIN = "from unionfuse.cli.overlay import main; main()"
SECONDS = "UNIONFUSE_FORKSERVER_SECONDS"
TITLE = b"unionfuse-forkserver"
IN_SHELL = ("-c", '"$@"; exit $?', "sh")  # and not in its place


class FakeEngine:
    """A program called podman, which is the parent of what it calls."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.program = base / "podman"
        self.shell: tuple[str, ...] = ()
        shutil.copy("/bin/sh", self.program)
        self.unions: list[Layers] = []
        # no other test meets the servers of this one
        self.env = {"PYTHON_FORKSERVER_TEST": str(base), SECONDS: "20"}

    def call(
        self, *arguments: str | Path, prefix: tuple[str, ...] = (), **options: object
    ) -> subprocess.CompletedProcess[str]:
        """Call unionfuse-overlay."""
        env = {**self.env, **options.pop("env", {})}
        program = (*self.shell, sys.executable, "-c", MAIN)
        return command(
            *prefix, self.program, *IN_SHELL, *program, *arguments, env=env, **options
        )  # fmt: skip

    def become(self, name: str, *shell: str) -> None:
        """Be a program called `name`, which calls through `shell`."""
        self.program = self.program.rename(self.base / name)
        self.shell = shell

    def union(self) -> Layers:
        """Make directories for one more union."""
        (self.base / str(len(self.unions))).mkdir()
        layers = Layers.create(self.base / str(len(self.unions)), 1)
        (layers.lowers[0] / "file").write_text("lower\n")
        self.unions.append(layers)
        return layers

    def mount(self, mark: str, **options: object) -> Layers:
        """Mount one more union, with MARK in the environment."""
        layers = self.union()
        done = self.call("-o", words(layers), layers.mnt, env={"MARK": mark}, **options)
        assert (done.returncode, done.stderr) == (0, "")
        assert (layers.mnt / "file").read_text() == "lower\n"
        return layers

    def servers(self) -> list[int]:
        """Return the servers of this test, without the ldconfig that trio runs when imported."""
        found = [pid for pid, line in self.processes() if line[0] == TITLE]
        return [pid for pid in found if parent_of(pid) not in found]

    def daemon_of(self, layers: Layers) -> int:
        """Return the process that serves a mount."""
        mnt = os.fsencode(layers.mnt)
        [pid] = [pid for pid, line in self.processes() if mnt in line]
        return pid

    def has_served(self, layers: Layers) -> bool:
        """Tell whether a server has made the mount: then its environment was the server's."""
        environment = Path(f"/proc/{self.daemon_of(layers)}/environ").read_bytes().split(b"\0")
        return b"MARK=served" not in environment

    def processes(self) -> Iterator[tuple[int, list[bytes]]]:
        """Yield all processes that the engine has called, with what they show as command line."""
        ours = f"PYTHON_FORKSERVER_TEST={self.base}".encode()
        for process in Path("/proc").glob("[0-9]*"):
            try:
                environment = (process / "environ").read_bytes().split(b"\0")
                line = (process / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
            except OSError:
                continue  # it has just ended
            if ours in environment:
                yield int(process.name), line


def parent_of(pid: int) -> int:
    """Return the parent of a process; 0 if it has just ended."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def words(layers: Layers) -> str:
    return f"lowerdir={layers.lowers[0]},upperdir={layers.upper},workdir={layers.work}"


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[FakeEngine]:
    engine = FakeEngine(tmp_path)
    yield engine
    for layers in engine.unions:
        if is_mounted(layers.mnt):
            subprocess.run(["umount", layers.mnt], check=True, timeout=30)
    for pid, _ in engine.processes():  # daemons in other namespaces, which unmount, and servers
        os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not list(engine.processes()))


@pytest.fixture
def served(engine: FakeEngine) -> FakeEngine:
    """Return an engine that has a server."""
    engine.mount("first")
    engine.mount("second")
    wait_until(lambda: engine.servers() and is_listening(engine))
    return engine


def is_listening(engine: FakeEngine) -> bool:
    [server] = engine.servers()
    links = []
    for fd in Path(f"/proc/{server}/fd").iterdir():
        with contextlib.suppress(OSError):  # it was the server's only for a moment
            links.append(os.readlink(fd))
    return any(link.startswith("socket:") for link in links)


class TestServer:
    def test_it_begins_with_the_second_mount(self, engine):
        engine.mount("first")
        assert not engine.servers()
        engine.mount("second")
        wait_until(engine.servers)

    def test_it_is_there_for_containerd_which_mounts_through_a_shell(self, engine):
        engine.become("containerd-shim-runc-v2", "/bin/sh", *IN_SHELL)
        engine.mount("first")
        engine.mount("second")
        wait_until(engine.servers)

    def test_it_makes_the_next_mount(self, served):
        layers = served.mount("served")
        assert served.has_served(layers)
        (layers.mnt / "file").write_text("changed\n")
        (layers.mnt / "new").mkdir()
        subprocess.run(["umount", layers.mnt], check=True, timeout=30)
        assert (layers.upper / "file").read_text() == "changed\n"
        assert (layers.upper / "new").is_dir()

    def test_a_daemon_ends_with_its_mount_and_not_with_the_server(self, served):
        layers = served.mount("served")
        daemon = served.daemon_of(layers)
        os.kill(served.servers()[0], signal.SIGKILL)
        wait_until(lambda: not served.servers())
        (layers.mnt / "file").write_text("changed\n")
        subprocess.run(["umount", layers.mnt], check=True, timeout=30)
        wait_until(lambda: not os.path.exists(f"/proc/{daemon}"))

    def test_paths_are_those_of_the_caller(self, served):
        layers = served.union()
        done = served.call(
            "-o", "lowerdir=lower1,upperdir=upper,workdir=work", "mnt", cwd=layers.mnt.parent
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert (layers.mnt / "file").read_text() == "lower\n"

    def test_a_failure_is_told_as_ever(self, served):
        layers = served.union()
        arguments = ("-o", f"lowerdir={layers.mnt}/none", layers.mnt)
        done = served.call(*arguments)
        off = served.call(*arguments, env={SECONDS: "0"})
        assert done.returncode == 1
        assert "No such file" in done.stderr
        assert (done.returncode, done.stdout, done.stderr) == (
            off.returncode, off.stdout, off.stderr,
        )  # fmt: skip

    def test_many_at_once(self, served):
        unions = [served.union() for _ in range(8)]
        scripts = [
            f'"{sys.executable}" -c "{MAIN}" -o "{words(layers)}" "{layers.mnt}" &'
            for layers in unions
        ]
        done = command(served.program, "-c", "\n".join([*scripts, "wait"]), env=served.env)
        assert (done.returncode, done.stderr) == (0, "")
        assert all((layers.mnt / "file").read_text() == "lower\n" for layers in unions)

    def test_one_that_does_not_answer_is_not_waited_for(self, served):
        """It may be in a control group that is frozen; what asks it is in another."""
        [server] = served.servers()
        os.kill(server, signal.SIGSTOP)
        try:
            layers = served.mount("itself")
        finally:
            os.kill(server, signal.SIGCONT)
        assert served.daemon_of(layers)  # there is one
        assert served.has_served(served.mount("served"))
        assert served.daemon_of(layers)  # and no other one came when the server went on

    def test_it_ends_when_it_is_not_needed(self, engine):
        engine.env[SECONDS] = "1.5"
        engine.mount("first")
        engine.mount("second")
        wait_until(engine.servers)
        wait_until(lambda: not engine.servers())


class TestNoServer:
    def test_where_it_is_not_wanted(self, engine):
        engine.env[SECONDS] = "0"
        for _ in range(3):
            engine.mount("")
        assert not engine.servers()

    def test_for_an_engine_that_makes_a_new_namespace_each_time(self, engine):
        prefix = ("unshare", "--mount", "--propagation", "unchanged")
        for _ in range(3):
            layers = engine.union()
            done = engine.call("-o", words(layers), layers.mnt, prefix=prefix)
            assert (done.returncode, done.stderr) == (0, "")
        assert not engine.servers()

    def test_for_a_user(self, engine):
        for _ in range(3):
            layers = engine.union()
            done = command(
                sys.executable, "-c", MAIN, "-o", words(layers), layers.mnt, env=engine.env
            )
            assert done.returncode == 0, done.stderr
        assert not engine.servers()

    def test_for_a_script_that_an_engine_runs(self, engine):
        engine.become("podman", "/bin/sh", *IN_SHELL)
        for _ in range(3):
            engine.mount("")
        assert not engine.servers()

    @pytest.mark.parametrize("flag", ["-f", "-d"])
    def test_in_the_foreground(self, served, flag):
        layers = served.union()
        process = subprocess.Popen(
            [served.program, *IN_SHELL, sys.executable, "-c", MAIN, flag,
             "-o", words(layers), layers.mnt],
            env={**os.environ, **served.env, "PYTHONPATH": os.getcwd(), "LC_ALL": "C.UTF-8"},
            stderr=subprocess.PIPE,
        )  # fmt: skip
        with process:
            wait_until(lambda: is_mounted(layers.mnt))
            assert process.poll() is None
            os.listdir(layers.mnt)
            subprocess.run(["umount", layers.mnt], check=True, timeout=30)
            assert process.wait(30) == 0
