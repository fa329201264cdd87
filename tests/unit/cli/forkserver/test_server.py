"""A child of the server does what the client would have done, or the client does it itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.commands import wait_until
from tests.support.mounts import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVE = """
import gc, os, sys, time
from unionfuse.cli.forkserver.server import Server
def run(argv):
    exec(argv[0])
    return int(argv[1])
server = Server(sys.argv[1], run)
gc.freeze()
print(flush=True)
server.serve()
"""
ASK = """
import os, sys
from unionfuse.cli.forkserver import client
place = client.Place.__new__(client.Place)
place.path = sys.argv[1]
print("asked", os.getpid(), flush=True)
print(client.ask(place, sys.argv[2:]), flush=True)
"""
ENV = {**os.environ, "PYTHONPATH": str(REPOSITORY), "LC_ALL": "C.UTF-8"}
SECONDS = "UNIONFUSE_FORKSERVER_SECONDS"
TIMEOUT = 30


class Running:
    """A server that is running."""

    def __init__(self, path: Path, process: subprocess.Popen[bytes]) -> None:
        self.path = path
        self.process = process

    def ask(
        self, statement: str, status: int = 0, *, prefix: tuple[str, ...] = (), **options: object
    ) -> tuple[list[str], str]:
        """Ask for a statement to be run; return what was printed but the first line, and stderr."""
        command = [*prefix, sys.executable, "-c", ASK, self.path, statement, str(status)]
        given = {"env": ENV, "cwd": "/", **options}
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT, check=False, **given
        )
        return done.stdout.splitlines()[1:], done.stderr

    def wait(self) -> int:
        return self.process.wait(TIMEOUT)


@pytest.fixture
def server(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Running]:
    path = tmp_path / "server"
    seconds = getattr(request, "param", "20")
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, path, " " * 1000],
        env={**ENV, SECONDS: seconds}, cwd="/", stdout=subprocess.PIPE,
    )  # fmt: skip
    with process:
        assert process.stdout
        process.stdout.readline()
        yield Running(path, process)
        process.kill()


@pytest.fixture
def group() -> Iterator[Path]:
    """Make a control group of version 2."""
    roots = [Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified")]
    unified = [root for root in roots if (root / "cgroup.procs").exists()]
    if not unified or not os.access(unified[0], os.W_OK) or os.geteuid():
        pytest.skip("no control groups of version 2 that may be made here")
    made = unified[0] / f"unionfuse-test-{os.getpid()}"
    made.mkdir()
    yield made
    wait_until(lambda: not (made / "cgroup.procs").read_text())
    made.rmdir()


class TestStandsIn:
    def test_its_exit_status_is_told(self, server):
        assert server.ask("pass", 7) == (["7"], "")

    def test_it_writes_to_the_streams_of_the_client(self, server):
        said = server.ask("print('out'); print('err', file=sys.stderr)")
        assert said == (["out", "0"], "err\n")

    def test_it_is_where_the_client_is(self, server, tmp_path):
        (tmp_path / "here").mkdir()
        said, _ = server.ask("print(os.getcwd())", cwd=tmp_path / "here")
        assert said[0] == str(tmp_path / "here")

    def test_it_has_the_environment_of_the_client(self, server):
        said, _ = server.ask(
            "print(sorted(os.environ), flush=True); os.system('printenv A')",
            env={**ENV, "A": "b"},
        )
        assert "'A'" in said[0]
        assert SECONDS not in said[0]
        assert said[1] == "b"

    def test_it_looks_as_the_client_did(self, server):
        show = "print(open('/proc/self/cmdline').read().rstrip(chr(0)).split(chr(0))[3:5])"
        assert server.ask(show)[0][0] == str([str(server.path), show])

    def test_it_is_in_the_control_group_of_the_client(self, server, group):
        into = ("sh", "-c", f'echo 0 > {group}/cgroup.procs && exec "$@"', "sh")
        said, _ = server.ask("print(open('/proc/self/cgroup').read())", prefix=into)
        assert f"0::/{group.name}" in said

    def test_it_has_no_other_descriptors(self, server):
        said, _ = server.ask("print(len(os.listdir('/proc/self/fd')))")
        assert int(said[0]) <= 5  # the streams, the connection, and the listing itself

    def test_it_can_wait_for_children_of_its_own(self, server):
        said, _ = server.ask("print(os.waitstatus_to_exitcode(os.system('exit 3')))")
        assert said[0] == "3"

    def test_an_exception_is_shown_as_ever(self, server):
        said, err = server.ask("1 / 0")
        assert said == ["1"]
        assert err.endswith("ZeroDivisionError: division by zero\n")

    def test_one_that_dies_is_a_failure_and_not_tried_again(self, server):
        said, err = server.ask("os.kill(os.getpid(), 9)")
        assert said == ["1"]
        assert "ended without a word" in err


class TestDeclines:
    @pytest.mark.parametrize(
        "prefix", [("nice", "-n", "1"), ("prlimit", "--nofile=100"), ("setpriv", "--no-new-privs")]
    )
    def test_a_client_that_is_not_as_the_server(self, server, prefix):
        assert server.ask("print('done')", prefix=prefix) == (["None"], "")

    @pytest.mark.userns
    def test_a_client_in_another_namespace(self, server):
        prefix = ("unshare", "--user", "--map-root-user", "--mount")
        assert server.ask("print('done')", prefix=prefix) == (["None"], "")

    def test_another_interpreter(self, server):
        assert server.ask("print('done')", env={**ENV, "LC_ALL": "C"}) == (["None"], "")

    def test_nonsense(self, server):
        script = f"""
import socket
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
    server.connect("{server.path}.socket")
    server.send(b"nonsense")
    print(int.from_bytes(server.recv(4), "big"))
"""
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, timeout=TIMEOUT,
            check=True,
        )  # fmt: skip
        assert done.stdout == "0\n"
        assert server.ask("pass", 4) == (["4"], "")

    def test_when_it_is_not_there(self, tmp_path):
        assert Running(tmp_path / "none", None).ask("pass") == (["None"], "")

    def test_when_it_was_killed(self, server):
        server.process.kill()
        server.wait()
        assert server.ask("pass") == (["None"], "")


class TestEnds:
    @pytest.mark.parametrize("server", ["0.3"], indirect=True)
    def test_when_nobody_has_asked_for_a_while(self, server):
        assert server.ask("pass")[0] == ["0"]
        assert server.wait() == 0
        assert not list(server.path.parent.glob("server*"))

    def test_when_the_program_was_changed(self, tmp_path):
        package = tmp_path / "unionfuse"
        package.mkdir()
        (package / "extra.py").write_text("")
        serve = f"""
import unionfuse
unionfuse.__path__.append("{package}")
import unionfuse.extra
{SERVE}"""
        path = tmp_path / "server"
        with subprocess.Popen(
            [sys.executable, "-c", serve, path], env=ENV, cwd="/", stdout=subprocess.PIPE
        ) as process:
            process.stdout.readline()
            server = Running(path, process)
            assert server.ask("pass")[0] == ["0"]
            os.utime(package / "extra.py", ns=(0, 1))
            assert server.ask("pass")[0] == ["None"]
            assert process.wait(TIMEOUT) == 0

    def test_a_second_one_at_once(self, server):
        done = subprocess.run(
            [sys.executable, "-c", SERVE, server.path], env=ENV, cwd="/", capture_output=True,
            timeout=TIMEOUT, check=False,
        )  # fmt: skip
        assert b"BlockingIOError" in done.stderr
        assert server.ask("pass")[0] == ["0"]

    def test_no_child_is_left_unburied(self, server):
        for _ in range(3):
            server.ask("pass")
        time.sleep(0.1)
        children = f"/proc/{server.process.pid}/task/{server.process.pid}/children"
        with open(children) as file:
            assert file.read() == ""


class TestSignals:
    def client(self, server: Running, statement: str) -> subprocess.Popen[str]:
        """Start a client; return it when the statement has printed something."""
        ready = f"import signal, time; print('ready', flush=True); {statement}"
        client = subprocess.Popen(
            [sys.executable, "-c", ASK, server.path, ready, "5"],
            env=ENV, cwd="/", stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert client.stdout
        assert client.stdout.readline().startswith("asked")
        assert client.stdout.readline() == "ready\n"
        return client

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGUSR1, signal.SIGWINCH])
    def test_they_are_passed_on(self, server, number):
        statement = f"print(signal.sigwait([{int(number)}]).name)"
        block = f"signal.pthread_sigmask(signal.SIG_BLOCK, [{int(number)}])"
        with self.client(server, f"{block}; print('blocked', flush=True); {statement}") as client:
            assert client.stdout.readline() == "blocked\n"
            client.send_signal(number)
            said, _ = client.communicate(timeout=TIMEOUT)
        assert said.splitlines() == [number.name, "5"]

    def test_one_that_ends_it_ends_the_client(self, server):
        with self.client(server, "time.sleep(60)") as client:
            client.send_signal(signal.SIGTERM)
            assert client.wait(TIMEOUT) == -signal.SIGTERM

    def test_a_client_that_is_killed_takes_it_along(self, server, tmp_path):
        script = f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)"
        with self.client(server, script) as client:
            wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
            client.kill()
        pid = int((tmp_path / "pid").read_text())
        wait_until(lambda: not os.path.exists(f"/proc/{pid}"))

    def test_what_it_has_forked_goes_on(self, server, tmp_path):
        script = f"""
if not os.fork():
    os.setsid(); time.sleep(0.3); open({str(tmp_path / "done")!r}, "w").close(); os._exit(0)
"""
        assert server.ask(f"import time\n{script}")[0] == ["0"]
        wait_until((tmp_path / "done").exists)

    def test_it_waits_for_children_though_the_server_does_not(self, server):
        said, _ = server.ask("import signal; print(signal.getsignal(signal.SIGCHLD))")
        assert said[0] == str(signal.SIG_DFL)
