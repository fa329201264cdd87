"""Containers from the first command to the last, as root and as a plain user."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.containers import kill_many
from tests.support import clients, containers
from tests.support.containers import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.clients import House
    from tests.support.containers import Tool

pytestmark = [
    pytest.mark.clients,
    pytest.mark.fuse,
    pytest.mark.root,
    pytest.mark.once,
    pytest.mark.timeout(120),
]

IMAGE = "localhost/busybox:1"
FOREVER = "trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.05; done"


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    with clients.temporary_house() as made:
        yield made


@pytest.fixture(scope="module", params=["root", "user", "unserved"])
def tool(request: pytest.FixtureRequest, house: House) -> Iterator[Tool]:
    """Return a tool of root, of a user, and one of root whose commands no fork server runs."""
    more = {"UNIONFUSE_FORKSERVER_SECONDS": "0"} if request.param == "unserved" else {}
    with containers.tool(house, request.param, is_root=request.param != "user", **more) as made:
        made.run(
            "image", "import", house.base / "busybox.tar", IMAGE,
            "--cmd", "sh", "--env", "FROM_IMAGE=yes",
        )  # fmt: skip
        yield made


@pytest.fixture(autouse=True)
def _nothing_is_left(tool: Tool) -> Iterator[None]:
    yield
    ids = tool.out("ps", "-aq").split()
    if ids:
        tool.run("rm", "-f", *ids)
    wait_for(tool.is_clean)


def started(tool: Tool, name: str, *options: str) -> str:
    container = tool.out("run", "-d", "--name", name, *options, IMAGE, "sh", "-c", FOREVER)
    wait_for(lambda: "ready" in tool.out("logs", name))
    return container


def test_a_command_has_its_streams_and_its_exit_code(tool: Tool) -> None:
    script = "cat; echo error >&2; exit 3"
    done = tool.run("run", "--rm", "-i", IMAGE, "sh", "-c", script, stdin="text\n", code=3)
    assert (done.stdout, done.stderr) == ("text\n", "error\n")


def test_what_can_not_be_run_has_dockers_exit_codes(tool: Tool) -> None:
    assert "no image" in tool.run("run", "no-such-image", code=125).stderr
    assert "nosuch" in tool.run("run", "--rm", IMAGE, "nosuch", code=127).stderr
    for no_program in ("/etc/passwd", "/etc"):
        assert tool.run("run", "--rm", IMAGE, no_program, code=126).stderr.count("\n") == 1
    for command in ("run", "exec"):  # 2 might be the program's
        assert "Usage" in tool.run(command, "--nosuch", code=125).stderr


def test_what_fails_with_one_of_several_containers_keeps_none_of_the_others(tool: Tool) -> None:
    for name in ("one", "two"):
        tool.run("run", "--name", name, IMAGE, "true")
    for command, code in (("start", 125), ("stop", 1), ("rm", 1)):
        done = tool.run(command, "one", "nosuch", "two", code=code)
        assert done.stdout == "one\ntwo\n"
        assert done.stderr == "unionfuse: no such container: nosuch\n"
        wait_for(lambda: tool.out("ps", "-q") == "")
    assert tool.out("ps", "-aq") == ""


def test_one_that_runs_is_left_alone_by_start(tool: Tool) -> None:
    started(tool, "web")
    assert tool.out("start", "web") == "web"
    assert "is running" in tool.run("start", "-a", "web", code=125).stderr


def test_the_own_group_is_among_the_further_ones(tool: Tool) -> None:
    # or a program that sets its group would be rid of it (CVE-2022-2989)
    said = tool.out("run", "--rm", "-u", "5:6", IMAGE, "grep", "Groups", "/proc/self/status")
    assert said.split() == ["Groups:", "6"]


def test_root_of_the_container_has_all_ids_and_few_rights(tool: Tool) -> None:
    script = (
        "id -u; touch /f; chown 5:6 /f; stat -c %u:%g /f; grep -E 'CapEff|Seccomp:' /proc/1/status"
    )
    uid, owner, capabilities, seccomp = tool.out("run", "--rm", IMAGE, "sh", "-c", script).split(
        "\n"
    )
    assert (uid, owner) == ("0", "5:6")
    assert int(capabilities.split()[1], 16) & (1 << 21) == 0, "no CAP_SYS_ADMIN"
    assert seccomp.split()[1] == "2"


def test_options_change_what_the_image_says(tool: Tool) -> None:
    script = "id -u; id -G; pwd; echo $FROM_IMAGE $MINE $HOME; hostname; cat /etc/hostname"
    options = ["-u", "user", "-w", "/var/new", "-e", "MINE=1", "--hostname", "box"]
    options += ["--entrypoint", "/bin/sh"]
    said = tool.out("run", "--rm", *options, IMAGE, "-c", script).split("\n")
    assert said == ["1000", "1000", "/var/new", "yes 1 /", "box", "box"]


def test_only_loopback_is_there_unless_the_hosts_network_is_asked_for(tool: Tool) -> None:
    def interfaces(*options: str) -> list[str]:
        return tool.out("run", "--rm", *options, IMAGE, "ls", "/sys/class/net").split()

    assert interfaces() == ["lo"]
    assert interfaces("--network", "host") == sorted(os.listdir("/sys/class/net"))


def test_volumes_and_tmpfs_are_there_and_what_is_read_only_is_not_written(tool: Tool) -> None:
    shared = tool.base / "home" / "shared"
    shared.mkdir(exist_ok=True)
    shared.chmod(0o777)
    (shared / "given").write_text("given\n")
    script = (
        "cat /ro/given; echo x > /rw/made; echo y > /t/f; for f in /f /ro/f; do echo 1 > $f; done"
    )
    done = tool.run(
        "run", "--rm", "--read-only", "-v", f"{shared}:/ro:ro", "-v", f"{shared}:/rw", "--tmpfs",
        "/t:size=1m", IMAGE, "sh", "-c", script, code=1,
    )  # fmt: skip
    assert done.stdout == "given\n"
    assert done.stderr.count("Read-only file system") == 2
    assert (shared / "made").read_text() == "x\n"


def test_a_detached_container_lives_until_it_is_stopped_and_keeps_its_files(tool: Tool) -> None:
    container = started(tool, "web")
    assert tool.out("ps", "-q", "--no-trunc") == container
    assert "taken" in tool.run("run", "-d", "--name", "web", IMAGE, code=125).stderr
    assert tool.out("exec", "web", "sh", "-c", "echo kept > /file; hostname") == container[:12]
    tool.run("exec", "web", "sh", "-c", "exit 4", code=4)
    assert tool.out("exec", "-i", "-u", "user", container[:5], "cat", stdin="in") == "in"
    assert "running" in tool.run("rm", "web", code=1).stderr
    tool.run("stop", "web")
    assert tool.state("web")["exit_code"] == 5
    assert tool.out("logs", "web").split() == ["ready", "bye"]
    assert tool.out("ps", "-q") == ""
    assert "not running" in tool.run("exec", "web", "true", code=125).stderr
    tool.run("start", "web")
    assert tool.out("exec", "web", "cat", "/file") == "kept"
    tool.run("rm", "-f", "web")
    assert "no such container: web" in tool.run("logs", "web", code=1).stderr


def test_a_container_that_does_not_obey_is_killed(tool: Tool) -> None:
    tool.run("run", "-d", "--name", "deaf", IMAGE, "sh", "-c", "trap '' TERM; sleep 100 & wait")
    before = time.monotonic()
    tool.run("stop", "-t", "0.2", "deaf")
    assert time.monotonic() - before < 10
    assert tool.state("deaf")["exit_code"] == 137


def test_files_are_copied_in_and_out_by_dockers_rules(tool: Tool, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    for directory in tmp_path.parents:  # the user has to get there
        if directory.owner() == "root" and directory != Path("/") and directory != Path("/tmp"):
            directory.chmod(directory.stat().st_mode | 0o755)
    source = tmp_path / "dir"
    source.mkdir()
    (source / "file").write_text("copied\n")
    (source / "link").symlink_to("file")
    started(tool, "box")
    tool.run("cp", source, "box:/srv")  # not there: becomes it
    tool.run("cp", source, "box:/tmp")  # there: goes into it
    assert tool.out("exec", "box", "cat", "/srv/file", "/tmp/dir/link") == "copied\ncopied"
    tool.run("stop", "-t", "0", "box")
    tool.run("cp", f"{source}/.", "box:/root")
    tool.run("cp", "box:/root/.", tmp_path / "back")
    assert (tmp_path / "back/file").read_text() == "copied\n"
    assert os.readlink(tmp_path / "back/link") == "file"
    assert "nosuch" in tool.run("cp", "box:/nosuch", tmp_path, code=1).stderr


def test_what_is_copied_again_takes_the_place_of_what_is_there(tool: Tool) -> None:
    script = """
        mkdir /d; echo new > /d/a; ln /d/a /d/b; mkfifo /d/p; ln -s /etc/hostname /d/abs
        mkdir /e; echo old > /e/a; ln /e/a /kept; ln -s /e/there /way
    """
    tool.run("run", "--name", "box", IMAGE, "sh", "-euc", script)
    out = tool.base / "home/again"
    for _ in range(2):
        tool.run("cp", "box:/d/.", out)
        tool.run("cp", f"{out}/.", "box:/e")
    tool.run("cp", out / "a", "box:/way")  # a symlink that is named is followed
    shown = tool.base / "home/shown"
    tool.run("cp", "box:/", shown)
    read = {name: (shown / name).read_text() for name in ("e/a", "e/b", "kept", "e/there")}
    assert read == {"e/a": "new\n", "e/b": "new\n", "kept": "old\n", "e/there": "new\n"}
    assert (shown / "e/a").stat().st_ino == (shown / "e/b").stat().st_ino
    assert os.readlink(shown / "e/abs") == "/etc/hostname"
    assert (shown / "e/p").is_fifo()
    assert "no file" in tool.run("cp", "box:/kept", out / "p", code=1).stderr


def test_what_is_copied_to_a_volume_is_in_the_volume(tool: Tool) -> None:
    for name in ("open", "closed"):
        (tool.base / "home" / name).mkdir(exist_ok=True)
        (tool.base / "home" / name).chmod(0o777)
    (tool.base / "home/closed/file").write_text("closed\n")
    options = ["-v", "home/open:/v", "-v", "home/closed:/v/ro:ro"]
    started(tool, "box", *options)
    for name in ("runs", "stopped"):
        tool.run("cp", "home/closed/file", f"box:/v/{name}")
        assert (tool.base / "home/open" / name).read_text() == "closed\n"
        tool.run("cp", "box:/v/ro/file", f"home/{name}")
        assert (tool.base / "home" / name).read_text() == "closed\n"
        said = tool.run("cp", f"home/{name}", "box:/v/ro/no", code=1).stderr
        assert "Read-only" in said
        tool.run("stop", "-t", "0", "box")
    assert tool.out("diff", "box") == "A /v"


def test_relative_paths_are_meant_from_where_the_command_is(tool: Tool) -> None:
    for directory in ("home/in", "home/out"):
        (tool.base / directory).mkdir(exist_ok=True)
        (tool.base / directory).chmod(0o777)
    (tool.base / "home/in/file").write_text("near\n")
    started(tool, "box")
    for name in ("runs", "stopped"):
        tool.run("cp", "home/in/file", f"box:/{name}")
        tool.run("cp", f"box:/{name}", "home/out")
        assert (tool.base / "home/out" / name).read_text() == "near\n"
        tool.run("stop", "-t", "0", "box")


def test_a_tar_is_copied_in_from_stdin_and_out_to_stdout(tool: Tool, tmp_path: Path) -> None:
    for name in ("tree/dir", "back"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "tree/dir/file").write_text("streamed\n")
    os.link(tmp_path / "tree/dir/file", tmp_path / "tree/dir/hard")
    packed = subprocess.run(
        ["tar", "-C", tmp_path / "tree", "--transform=s,^dir,../../dir,", "-Pcz", "dir"],
        capture_output=True, check=True, timeout=30,
    ).stdout  # fmt: skip
    started(tool, "stream")
    command = tool.command("cp", "-", "stream:/srv")
    assert b"no directory" in _piped(command, packed, code=1)
    tool.run("exec", "stream", "mkdir", "/srv")
    _piped(command, packed)
    said = tool.out("exec", "stream", "stat", "-c", "%u:%h", "/srv/dir/file", "/srv/dir/hard")
    assert said == "0:2\n0:2"
    tool.run("stop", "-t", "0", "stream")
    out = _piped(tool.command("cp", "stream:/srv/dir", "-"), b"")
    subprocess.run(["tar", "-C", tmp_path / "back", "-x"], input=out, check=True, timeout=30)
    assert (tmp_path / "back/dir/hard").read_text() == "streamed\n"
    names = subprocess.run(
        ["tar", "-t"], input=_piped(tool.command("cp", "stream:/srv/dir/.", "-"), b""),
        capture_output=True, check=True, timeout=30,
    ).stdout.split()  # fmt: skip
    assert sorted(names) == [b"./", b"./file", b"./hard"]
    assert b"no" in _piped(tool.command("cp", "stream:/nosuch", "-"), b"", code=1)
    assert b"as a tar" in _piped(command, b"this is no tar", code=1)


def _piped(command: list[str], data: bytes, code: int = 0) -> bytes:
    """Run a command on `data`; return its stdout, or what it says on stderr if it has to fail."""
    done = subprocess.run(command, input=data, capture_output=True, timeout=60, check=False)
    assert done.returncode == code, done.stderr
    return done.stderr if code else done.stdout


def test_a_symlink_of_the_container_leads_nowhere_outside_of_it(tool: Tool) -> None:
    outside = tool.base / "home" / "outside"
    outside.mkdir(exist_ok=True)
    outside.chmod(0o777)
    tool.run("run", "--name", "trap", IMAGE, "ln", "-s", str(outside), "/way")
    tool.run("cp", "/etc/hostname", "trap:/way/stolen", code=1)
    assert list(outside.iterdir()) == []


def test_a_container_moves_to_another_store_with_its_files(tool: Tool) -> None:
    script = """
        echo new > /new; rm /etc/group; mkdir -p /d/e; chown 7:8 /d/e; chmod 4755 /new
        ln /new /d/hard; ln -s ../new /d/soft; mv /var /moved; touch -d @1000000000 /old
    """
    tool.run("run", "--name", "work", IMAGE, "sh", "-euc", script)
    changed = tool.out("diff", "work").split("\n")
    assert {"D /etc/group", "A /new", "C /etc", "D /var"} <= set(changed)
    assert not [line for line in changed if "hosts" in line or "proc" in line]
    show = "find / -xdev ! -path '/proc*' ! -path '/sys*' ! -path '/dev*' ! -path '/etc/[hr]*'"
    show += " | sort | xargs stat -c '%n %F %a %u:%g %Y %h'; cat /new /d/hard /d/soft"
    before = tool.out("run", "--rm", _commit(tool), "sh", "-c", show)
    archive = tool.base / "home" / "saved.tar"
    tool.run("image", "save", "localhost/moved:1", "-o", archive)
    second = tool.base / "home" / "second"
    tool.run("image", "load", archive, root=second)
    after = tool.out("run", "--rm", "localhost/moved:1", "sh", "-c", show, root=second)
    assert after == before
    assert "/d/e directory 755 7:8" in after
    assert after.endswith("new\nnew\nnew")
    names = subprocess.run(
        ["tar", "-t"], input=subprocess.run(tool.command("export", "work"), capture_output=True,
        check=True).stdout, capture_output=True, check=True,
    ).stdout.split()  # fmt: skip
    assert b"d/e/" in names
    assert b"etc/group" not in names


def _commit(tool: Tool) -> str:
    tool.run("commit", "work", "localhost/moved:1")
    return "localhost/moved:1"


def test_what_was_written_to_the_containers_own_files_stays_its_own(tool: Tool) -> None:
    script = "echo x >> /etc/hosts; rm /etc/hostname; mv /etc/resolv.conf /etc/kept; echo n > /new"
    tool.run("run", "--name", "work", IMAGE, "sh", "-euc", script)
    changed = tool.out("diff", "work").split("\n")
    assert sorted(changed) == ["A /etc/kept", "A /new", "C /etc"]
    show = "cat /new; grep -c x /etc/hosts; test -s /etc/hostname && test -e /etc/kept && echo all"
    assert tool.out("run", "--rm", _commit(tool), "sh", "-c", show) == "n\n0\nall"


def test_layers_stay_as_long_as_a_container_needs_them(tool: Tool) -> None:
    tool.run("image", "tag", IMAGE, "localhost/other:1")
    started(tool, "box")
    for name in (IMAGE, "localhost/other:1"):
        tool.run("image", "rm", name)
    tool.run("image", "gc")
    tool.run("stop", "-t", "0", "box")
    tool.run("start", "box")
    assert tool.out("exec", "box", "cat", "/etc/hostname")
    tool.run("commit", "box", IMAGE)


@pytest.mark.parametrize("victim", ["conmon_pid", "daemon_pid", "pid"])
def test_a_killed_helper_ends_its_container_and_leaves_nothing(tool: Tool, victim: str) -> None:
    started(tool, "box")
    state = tool.state("box")
    os.kill(state[victim], signal.SIGKILL)
    wait_for(lambda: tool.state("box")["status"] == "exited")
    assert tool.state("box")["exit_code"] == 137
    wait_for(lambda: not tool.processes())
    tool.run("start", "box")
    tool.run("exec", "box", "true")


def test_a_container_whose_command_was_killed_goes_on_and_is_removed_at_its_end(
    tool: Tool,
) -> None:
    with tool.start("run", "--rm", "--name", "box", IMAGE, "sh", "-c", FOREVER) as command:
        assert command.stdout is not None
        assert command.stdout.readline() == "ready\n"
        command.kill()
    assert tool.out("exec", "box", "echo", "alive") == "alive"
    tool.run("stop", "box")
    assert tool.out("ps", "-aq") == ""


def test_commands_that_are_killed_at_any_moment_leave_nothing(tool: Tool) -> None:
    kill_many(tool, 4, seed=int(tool.is_root))  # make test-containers kills more


def test_signals_go_to_the_container(tool: Tool) -> None:
    with tool.start("run", "--rm", IMAGE, "sh", "-c", FOREVER) as command:
        assert command.stdout is not None
        assert command.stdout.readline() == "ready\n"
        command.terminate()
        assert command.stdout.read() == "bye\n"
        assert command.wait(20) == 5


def test_a_terminal_is_passed_on(tool: Tool) -> None:
    pid, fd = pty.fork()
    if pid == 0:
        os.execvp("nsenter", tool.command("run", "--rm", "-it", IMAGE, "sh", "-c", "tty; cat"))
    said = b""
    while b"/dev/pts/0" not in said:
        assert select.select([fd], [], [], 20)[0], said
        said += os.read(fd, 1000)
    os.write(fd, b"typed\n\x04")
    while True:
        try:
            data = os.read(fd, 1000)
        except OSError:  # the terminal is closed
            break
        if not data:
            break
        said += data
    os.close(fd)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert said.count(b"typed") == 2, "once echoed, once by cat"


def test_limits_are_roots_to_set(tool: Tool) -> None:
    script = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes || cat /sys/fs/cgroup/memory.max"
    command = ["run", "--rm", "--memory", "64m", "--pids-limit", "50", IMAGE, "sh", "-c", script]
    if tool.is_root:
        assert tool.out(*command) == str(64 << 20)
    else:
        assert "need root" in tool.run(*command, code=125).stderr


def test_prune_removes_what_does_not_run(tool: Tool) -> None:
    running = started(tool, "running")
    tool.run("run", "--name", "ended", IMAGE, "true")
    ended = tool.state("ended")["id"]
    assert tool.out("prune") == ended
    assert tool.out("ps", "-aq", "--no-trunc") == running
