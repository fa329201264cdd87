"""The command line says in one line what is wrong, and does what it says when nothing is."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

from tests.support.commands import command, unionfuse, wait_until
from tests.support.mounts import (
    REPOSITORY,
    Layers,
    daemon_pids,
    is_mounted,
    public_directory,
    union_mount,
)
from tests.support.sessions import session_option
from tests.support.users import NOBODY, as_plain_user, in_private_mounts
from unionfuse.cli.group import cli

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.fuse

FAILED, MISUSED = 1, 2


def complaint(done: subprocess.CompletedProcess[str]) -> str:
    """Return the one line that a failed command has said, without its beginning."""
    assert done.returncode == FAILED, done
    assert done.stdout == ""
    assert done.stderr.startswith("unionfuse: ")
    assert done.stderr.endswith("\n")
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr.removeprefix("unionfuse: ").removesuffix("\n")


def succeed(*arguments: str | bytes | Path) -> str:
    done = unionfuse(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def private_copy_of_all_mounts() -> Iterator[int]:
    """Run a process with a mount namespace of its own, made of this one; yield its pid."""
    command = ["unshare", "--mount", "--propagation", "private", "sleep", "60"]
    with subprocess.Popen(command) as process:
        try:
            own = os.readlink("/proc/self/ns/mnt")
            wait_until(
                lambda: (
                    os.readlink(f"/proc/{process.pid}/ns/mnt") != own
                    and Path(f"/proc/{process.pid}/comm").read_text() == "sleep\n"
                )
            )
            yield process.pid
        finally:
            process.kill()


@contextmanager
def mounted(mountpoint: Path, *arguments: str | bytes | Path) -> Iterator[None]:
    """Run `unionfuse mount` with these arguments; `mountpoint` is where it mounts."""
    succeed("mount", *arguments)
    try:
        yield
    finally:
        if is_mounted(mountpoint):
            succeed("umount", mountpoint)


def kernel_options(mountpoint: Path) -> tuple[str, set[str]]:
    """Return the source and options that /proc/mounts shows for a mount."""
    for line in Path("/proc/mounts").read_text(errors="surrogateescape").splitlines():
        source, where, fstype, options, *_ = line.split()
        if where == str(mountpoint):
            assert fstype == "fuse.unionfuse"
            return source, set(options.split(","))
    raise AssertionError(f"{mountpoint} is not mounted")


def kill_daemon(mountpoint: Path) -> None:
    [pid] = daemon_pids(mountpoint)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not daemon_pids(mountpoint))


@pytest.mark.once
class TestMistakes:
    """What cannot be mounted is refused in one line, with exit code 1, and leaves nothing."""

    @pytest.fixture(autouse=True)
    def _nothing_is_mounted(self, layers):
        yield
        assert not is_mounted(layers.mnt)
        assert not daemon_pids(layers.mnt)

    def test_a_lower_layer_that_does_not_exist(self, layers):
        done = unionfuse("mount", f"{layers.lowers[0]}:nowhere", layers.upper, layers.mnt)
        assert complaint(done) == "lower layer nowhere: No such file or directory"

    def test_an_upper_that_does_not_exist(self, layers):
        done = unionfuse("mount", layers.lowers[0], "nowhere", layers.mnt)
        assert complaint(done) == "upper nowhere: No such file or directory"

    def test_a_mountpoint_that_does_not_exist(self, layers):
        done = unionfuse("mount", layers.lowers[0], layers.upper, "nowhere")
        assert complaint(done) == "mountpoint nowhere: No such file or directory"

    def test_a_workdir_in_a_directory_that_does_not_exist(self, layers):
        done = unionfuse(
            "mount", "--workdir", "no/where", layers.lowers[0], layers.upper, layers.mnt
        )
        assert complaint(done) == (
            f"directory of the workdir {Path.cwd() / 'no'}: No such file or directory"
        )

    @pytest.mark.parametrize("which", ["lower layer", "upper", "mountpoint", "workdir"])
    def test_a_file_in_place_of_a_directory(self, layers, which):
        file = layers.mnt.with_name("file")
        file.touch()
        paths = {
            "lower layer": layers.lowers[0],
            "upper": layers.upper,
            "mountpoint": layers.mnt,
            "workdir": layers.work,
        }
        paths[which] = file
        lower, upper, mnt, work = paths.values()
        done = unionfuse("mount", "--workdir", work, lower, upper, mnt)
        assert complaint(done) == f"{which} {file}: Not a directory"

    def test_an_empty_layer_in_the_list(self, layers):
        done = unionfuse("mount", f"{layers.lowers[0]}:", layers.upper, layers.mnt)
        assert complaint(done) == "an empty lower layer: give LOWER[:LOWER...]"

    @pytest.mark.root
    def test_a_workdir_on_another_filesystem_than_the_upper(self, layers):
        with tmpfs(layers.work):
            done = unionfuse(
                "mount", "--workdir", layers.work, layers.lowers[0], layers.upper, layers.mnt
            )
        assert complaint(done) == (
            f"upper {layers.upper} and workdir {layers.work} are on different filesystems: "
            "give a --workdir on that of the upper"
        )

    def test_a_workdir_that_a_live_mount_uses(self, layers, tmp_path):
        other = Layers.create(tmp_path / "other", 1)
        with union_mount(layers):
            done = unionfuse(
                "mount", "--workdir", layers.work, other.lowers[0], other.upper, other.mnt
            )
            assert complaint(done) == f"{layers.work}: workdir is in use by another mount"
            assert not is_mounted(other.mnt)
            (layers.mnt / "file").touch()

    def test_an_upper_that_a_live_mount_uses(self, layers, tmp_path):
        other = Layers.create(tmp_path / "other", 1)
        with union_mount(layers):
            done = unionfuse(
                "mount", "--workdir", other.work, other.lowers[0], layers.upper, other.mnt
            )
            assert complaint(done) == f"{layers.upper}: upper is in use by another mount"
            assert not is_mounted(other.mnt)
            (layers.mnt / "file").touch()

    @pytest.mark.parametrize("which", ["lower layer", "upper", "workdir"])
    def test_a_mountpoint_inside_a_layer(self, layers, which):
        paths = {
            "lower layer": layers.lowers[0],
            "upper": layers.upper,
            "workdir": layers.work,
        }
        inside = paths[which] / "inside"
        inside.mkdir()
        done = unionfuse("mount", "--workdir", layers.work, layers.lowers[0], layers.upper, inside)
        assert complaint(done) == (
            f"mountpoint {inside} is inside the {which} {paths[which]}: "
            "the union would contain itself"
        )

    @pytest.mark.parametrize("which", ["lower layer", "upper"])
    def test_a_layer_inside_the_mountpoint(self, layers, which):
        paths = {"lower layer": layers.lowers[0], "upper": layers.upper}
        inside = paths[which] = layers.mnt / "inside"
        inside.mkdir()
        done = unionfuse(
            "mount", "--workdir", layers.work, paths["lower layer"], paths["upper"], layers.mnt
        )
        assert complaint(done) == (
            f"{which} {inside} is inside the mountpoint {layers.mnt}: the mount would hide it"
        )

    def test_an_upper_that_is_a_lower_layer_too(self, layers):
        done = unionfuse(
            "mount", "--workdir", layers.work,
            f"{layers.lowers[0]}:{layers.upper}", layers.upper, layers.mnt,
        )  # fmt: skip
        assert complaint(done) == f"{layers.upper} is given as a lower layer and as the upper"

    def test_that_it_is_the_same_directory_is_seen_through_a_symlink(self, layers):
        link = layers.mnt.with_name("link")
        link.symlink_to(layers.upper)
        done = unionfuse("mount", link, layers.upper, layers.mnt)
        assert complaint(done) == f"{layers.upper} is given as a lower layer and as the upper"

    def test_an_upper_inside_a_lower_layer(self, layers):
        upper = layers.lowers[0] / "upper"
        upper.mkdir()
        done = unionfuse("mount", "--workdir", layers.work, layers.lowers[0], upper, layers.mnt)
        assert complaint(done) == (
            f"upper {upper} and lower layer {layers.lowers[0]} must not be one inside the other"
        )

    def test_a_workdir_inside_the_upper(self, layers):
        work = layers.upper / "work"
        done = unionfuse("mount", "--workdir", work, layers.lowers[0], layers.upper, layers.mnt)
        assert complaint(done) == "upper and workdir must not be one inside the other"

    @pytest.mark.parametrize("option", ["bogus", "nosuid,bogus", "bogus=1", "nosuid=1"])
    def test_an_unknown_mount_option(self, layers, option):
        done = unionfuse("mount", "-o", option, layers.lowers[0], layers.upper, layers.mnt)
        assert complaint(done) == f"unknown mount option: {option.removeprefix('nosuid,')}"

    def test_a_timeout_that_is_no_number(self, layers):
        done = unionfuse("mount", "-o", "timeout=soon", layers.lowers[0], layers.upper, layers.mnt)
        assert complaint(done) == "timeout is to be a number of seconds, 0 or more: soon"

    def test_a_mountpoint_with_a_dead_mount_on_it(self, layers):
        arguments = ("--workdir", layers.work, layers.lowers[0], layers.upper, layers.mnt)
        with mounted(layers.mnt, *arguments):
            kill_daemon(layers.mnt)
            done = unionfuse("mount", *arguments)
            assert complaint(done) == (
                f"mountpoint {layers.mnt}: a dead FUSE mount is there: "
                "unmount it first (unionfuse umount --lazy)"
            )
            succeed("umount", "--lazy", layers.mnt)

    @pytest.mark.root
    def test_a_machine_without_dev_fuse(self, layers):
        without_device = in_private_mounts("mount -t tmpfs none /dev")
        done = unionfuse("mount", layers.lowers[0], layers.upper, layers.mnt, prefix=without_device)
        assert complaint(done) == (
            "no /dev/fuse: load the kernel's module (modprobe fuse), or give the container the "
            "device (--device /dev/fuse)"
        )

    @pytest.mark.root
    def test_a_plain_user_without_fusermount3(self):
        with plain_layers() as layers:
            done = unionfuse(
                "mount", layers.lowers[0], layers.upper, layers.mnt,
                prefix=[*as_plain_user(), "env", "PATH=/nowhere"],
            )  # fmt: skip
        assert complaint(done) == (
            "not permitted to mount: run as root, in a user namespace (unshare -Urm), or "
            "install fusermount3 (package fuse3)"
        )

    @pytest.mark.root
    def test_a_plain_user_who_may_not_use_the_device(self):
        with plain_layers() as layers:
            done = unionfuse(
                "mount", layers.lowers[0], layers.upper, layers.mnt,
                prefix=as_plain_user(device_mode="600"),
            )  # fmt: skip
        assert "/dev/fuse" in complaint(done)
        assert "ermission denied" in complaint(done)

    @pytest.mark.root
    def test_a_mountpoint_that_is_not_the_users(self):
        with plain_layers() as layers:
            os.chown(layers.mnt, 0, 0)
            done = unionfuse(
                "mount", layers.lowers[0], layers.upper, layers.mnt, prefix=as_plain_user()
            )
        assert complaint(done).startswith(f"cannot mount on {layers.mnt}: ")

    def test_a_path_with_a_newline_is_told_in_one_line(self, layers):
        done = unionfuse("mount", "no\nwhere", layers.upper, layers.mnt)
        assert "No such file or directory" in complaint(done)

    def test_a_path_that_is_no_utf_8_is_told(self, layers):
        done = unionfuse("mount", b"no\xffwhere", layers.upper, layers.mnt)
        assert "No such file or directory" in complaint(done)


@contextmanager
def tmpfs(where: Path) -> Iterator[None]:
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", where], check=True, timeout=10)
    try:
        yield
    finally:
        subprocess.run(["umount", where], check=True, timeout=10)


@contextmanager
def plain_layers() -> Iterator[Layers]:
    """Make the directories of a union that belong to a plain user."""
    with public_directory() as base:
        layers = Layers.create(base / "union", 1)
        for path in (base / "union", *(base / "union").iterdir()):
            os.chown(path, NOBODY, NOBODY)
        yield layers


@pytest.mark.once
class TestMisuse:
    """A command line without sense is refused with its usage and exit code 2."""

    @pytest.mark.parametrize(
        "arguments",
        [
            ["mount"],
            ["mount", "lower"],
            ["mount", "lower", "upper"],
            ["mount", "lower", "upper", "mnt", "more"],
            ["mount", "--read-only", "lower", "upper", "mnt"],
            ["mount", "--bogus", "lower", "upper", "mnt"],
            ["mount", "--session", "bogus", "lower", "upper", "mnt"],
            ["umount"],
            ["ls", "more"],
            ["bogus"],
            ["--bogus"],
        ],
        ids=" ".join,
    )
    def test_it_exits_with_2_and_tells_the_usage(self, arguments):
        done = unionfuse(*arguments)
        assert done.returncode == MISUSED
        assert done.stdout == ""
        assert done.stderr.startswith("Usage: unionfuse")
        assert done.stderr.splitlines()[-1].startswith("Error: ")


@pytest.mark.once
class TestHelp:
    @pytest.mark.parametrize("name", ["mount", "umount", "ls"])
    def test_each_command_shows_an_example(self, name):
        for option in ("--help", "-h"):
            lines = succeed(name, option).splitlines()
            assert lines[0].startswith(f"Usage: unionfuse {name}")
            assert [line for line in lines if line.strip().startswith(f"unionfuse {name}")]

    def test_the_whole_shows_a_first_mount_the_commands_and_the_exit_codes(self):
        shown = succeed("--help")
        assert "unionfuse mount lower upper mnt" in shown
        assert re.search(r"^Commands:\n(  .*\n)*  umount ", shown, re.MULTILINE)
        assert re.search(r"^ *Exit codes:\n( +.*\n)* +2 ", shown, re.MULTILINE)

    def test_the_version(self):
        assert re.fullmatch(r"unionfuse \d+(\.\d+)+\n", succeed("--version"))

    @pytest.mark.parametrize(("shell", "word"), [("bash", "complete"), ("zsh", "compdef")])
    def test_the_script_that_completes_in_a_shell(self, shell, word):
        done = unionfuse(env={"_UNIONFUSE_COMPLETE": f"{shell}_source"})
        assert done.returncode == 0
        assert word in done.stdout
        assert "_UNIONFUSE_COMPLETE" in done.stdout

    @pytest.mark.parametrize(
        ("words", "completed"),
        [
            (["unionfuse", ""], set(cli.list_commands(click.Context(cli)))),
            (["unionfuse", "mount", "--re"], {"--read-only"}),
            (["unionfuse", "umount", "--l"], {"--lazy"}),
        ],
    )
    def test_words_are_completed(self, words, completed):
        done = unionfuse(
            env={
                "_UNIONFUSE_COMPLETE": "bash_complete",
                "COMP_WORDS": " ".join(words),
                "COMP_CWORD": str(len(words) - 1),
            }
        )
        assert {line.split(",")[-1] for line in done.stdout.splitlines()} == completed


ODD = {
    "no UTF-8": b"latin-1 \xe9\xff",
    "a colon": b"a:b",
    "backslashes": rb"back\slash\\",
    "spaces": b" spaces ",
    "a newline": b"two\nlines",
    "an option": b"--read-only",
    "a comma": b"ro,bogus",
}


@pytest.mark.once
class TestPaths:
    @pytest.mark.parametrize("name", ODD.values(), ids=ODD.keys())
    def test_any_path_can_be_mounted_listed_and_unmounted(self, tmp_path, name):
        # the layers are given by paths that begin with the odd name
        base = tmp_path / os.fsdecode(name)
        layers = Layers.create(base, 2)
        (layers.lowers[0] / "first").write_text("1")
        (layers.lowers[1] / "second").write_text("2")
        lowers = b":".join(
            os.path.join(name.replace(b"\\", rb"\\").replace(b":", rb"\:"), lower)
            for lower in (b"lower1", b"lower2")
        )
        upper, mnt = os.path.join(name, b"upper"), os.path.join(name, b"mnt")
        done = unionfuse("mount", "--", lowers, upper, mnt, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        try:
            assert sorted(os.listdir(layers.mnt)) == ["first", "second"]
            (layers.mnt / "new").touch()
            assert (layers.upper / "new").exists()
            [found] = [
                entry
                for entry in json.loads(succeed("ls", "--json"))
                if entry["mountpoint"] == str(layers.mnt)
            ]
            assert found["lowers"] == [str(lower) for lower in layers.lowers]
            assert unionfuse("ls").returncode == 0
        finally:
            done = unionfuse("umount", "--", mnt, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert list(layers.mnt.iterdir()) == []

    def test_the_workdir_is_made_beside_the_upper_for_its_user_alone(self, layers):
        with mounted(layers.mnt, layers.lowers[0], layers.upper, layers.mnt):
            work = layers.upper.with_name("upper.work")
            assert stat.S_IMODE(work.stat().st_mode) == 0o700
            assert json.loads(succeed("ls", "--json"))
        assert sorted(os.listdir(layers.upper)) == []

    def test_relative_paths_stay_those_of_where_it_was_called(self, layers):
        done = unionfuse("mount", "lower1", "upper", "mnt", cwd=layers.mnt.parent)
        assert done.returncode == 0, done.stderr
        (layers.mnt / "new").touch()
        assert (layers.upper / "new").exists()
        assert unionfuse("umount", "mnt", cwd=layers.mnt.parent).returncode == 0


CHANGES = {
    "create": lambda mnt: (mnt / "new").touch(),
    "write": lambda mnt: (mnt / "file").write_text("changed"),
    "chmod": lambda mnt: (mnt / "file").chmod(0o600),
    "unlink": lambda mnt: (mnt / "file").unlink(),
    "mkdir": lambda mnt: (mnt / "new").mkdir(),
    "rename": lambda mnt: (mnt / "file").rename(mnt / "new"),
    "setxattr": lambda mnt: os.setxattr(mnt / "file", "user.x", b"1"),
    "link": lambda mnt: os.link(mnt / "file", mnt / "new"),
}


@pytest.mark.once
class TestOptions:
    @pytest.mark.parametrize(
        "way", [["--read-only"], ["-o", "ro"], ["--read-only", "-o", "ro"]], ids=" ".join
    )
    def test_a_read_only_mount_takes_no_change(self, layers, way):
        (layers.lowers[0] / "file").write_text("lower")
        upper = [] if "--read-only" in way else [layers.upper]
        with mounted(layers.mnt, *way, layers.lowers[0], *upper, layers.mnt):
            for change in CHANGES.values():
                with pytest.raises(OSError, match="Read-only file system"):
                    change(layers.mnt)
            assert (layers.mnt / "file").read_text() == "lower"
            assert "ro" in kernel_options(layers.mnt)[1]
        assert os.listdir(layers.upper) == []

    @pytest.mark.parametrize(
        ("given", "shown"),
        [
            (["-o", "nosuid,nodev,noexec,noatime"], {"nosuid", "nodev", "noexec", "noatime"}),
            (["-o", "nosuid", "-o", "nodev"], {"nosuid", "nodev"}),
            (["-onodiratime,sync,dirsync"], {"nodiratime", "sync", "dirsync"}),
            (["-o", "nosuid,suid,ro,rw"], {"rw"}),
            (["-o", "volatile,timeout=0,fsync=0,,default_permissions"], {"default_permissions"}),
        ],
        ids=lambda value: " ".join(sorted(value)),
    )
    def test_mount_options_reach_the_kernel(self, layers, given, shown):
        with mounted(layers.mnt, *given, layers.lowers[0], layers.upper, layers.mnt):
            _, options = kernel_options(layers.mnt)
        assert options >= shown
        if given[-1] == "nosuid,suid,ro,rw":
            assert not options & {"nosuid", "ro"}

    def test_programs_do_not_run_from_a_noexec_mount(self, layers):
        program = layers.lowers[0] / "program"
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
        arguments = ("-o", "noexec", layers.lowers[0], layers.upper, layers.mnt)
        with mounted(layers.mnt, *arguments), pytest.raises(PermissionError):
            subprocess.run([layers.mnt / "program"], check=True, timeout=10)
        with mounted(layers.mnt, layers.lowers[0], layers.upper, layers.mnt):
            subprocess.run([layers.mnt / "program"], check=True, timeout=10)

    def test_the_source_in_the_mount_table_can_be_named(self, layers):
        with mounted(layers.mnt, layers.lowers[0], layers.upper, layers.mnt):
            assert kernel_options(layers.mnt)[0] == "unionfuse"
        with mounted(layers.mnt, "-o", "fsname=named", layers.lowers[0], layers.upper, layers.mnt):
            assert kernel_options(layers.mnt)[0] == "named"

    @pytest.mark.root
    def test_root_lets_others_in(self, layers):
        with mounted(layers.mnt, layers.lowers[0], layers.upper, layers.mnt):
            assert "allow_other" in kernel_options(layers.mnt)[1]


class TestProcess:
    def test_the_daemon_keeps_nothing_of_its_caller_open(self, layers):
        # unionfuse() itself waits for the end of the pipes
        reader, writer = os.pipe()
        arguments = [*session_option(), layers.lowers[0], layers.upper, layers.mnt]
        program = [sys.executable, "-m", "unionfuse", "mount", *arguments]
        with ExitStack() as stack:
            stack.callback(os.close, reader)
            stack.callback(os.close, writer)
            subprocess.run(program, cwd=REPOSITORY, check=True, timeout=30, pass_fds=[writer])
            stack.callback(succeed, "umount", layers.mnt)
            [pid] = daemon_pids(layers.mnt)
            opened = {number: os.readlink(f"/proc/{pid}/fd/{number}") for number in (0, 1, 2)}
            assert set(opened.values()) == {"/dev/null"}
            assert os.readlink(f"/proc/{pid}/cwd") == "/proc"
            assert os.getsid(pid) != os.getsid(0)
            every = set()
            for fd in Path(f"/proc/{pid}/fd").iterdir():
                # It still imports, so that one may be closed meanwhile.
                with suppress(FileNotFoundError):
                    every.add(os.readlink(fd))
            assert os.readlink(f"/proc/self/fd/{writer}") not in every

    @pytest.mark.parametrize("option", ["-f", "-d", "-fd"])
    def test_in_the_foreground_it_runs_until_the_unmount(self, layers, option):
        paths = [str(layers.lowers[0]), str(layers.upper), str(layers.mnt)]
        with subprocess.Popen(
            [sys.executable, "-m", "unionfuse", "mount", *session_option(), option, *paths],
            cwd=REPOSITORY, stderr=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            try:
                wait_until(lambda: is_mounted(layers.mnt) or process.poll() is not None)
                assert os.listdir(layers.mnt) == []
                assert process.poll() is None
                succeed("umount", layers.mnt)
                assert process.wait(20) == 0
            finally:
                process.kill()

    def test_a_debug_log_tells_more_than_the_usual_one(self, layers):
        sizes = []
        for option in ([], ["-d"]):
            log = layers.mnt.with_name("log")
            log.unlink(missing_ok=True)
            with mounted(
                layers.mnt, *option, "--log", log, layers.lowers[0], layers.upper, layers.mnt
            ):
                (layers.mnt / "file").write_text("text")
            sizes.append(log.stat().st_size)
        usual, debugging = sizes
        assert debugging > usual

    @pytest.mark.slow
    @pytest.mark.once
    def test_after_an_unmount_the_same_upper_can_be_mounted_at_once(self, layers):
        arguments = ("--workdir", layers.work, layers.lowers[0], layers.upper, layers.mnt)
        for number in range(20):
            succeed("mount", *arguments)
            # it serves by now: what is written goes to the upper, not below the mountpoint
            (layers.mnt / f"file-{number}").touch()
            assert len(os.listdir(layers.mnt)) == number + 1
            succeed("umount", layers.mnt)
            assert not daemon_pids(layers.mnt)
        assert len(os.listdir(layers.upper)) == 20


class TestUmount:
    def test_a_mount_in_use_is_kept(self, layers):
        with mounted(layers.mnt, layers.lowers[0], layers.upper, layers.mnt):
            with open(layers.mnt / "file", "w") as file:
                done = unionfuse("umount", layers.mnt)
                assert complaint(done) == (
                    f"{layers.mnt}: in use: end its users, or unmount with --lazy"
                )
                file.write("still there")
            assert (layers.mnt / "file").read_text() == "still there"

    def test_a_lazy_one_takes_it_away_and_lets_its_users_finish(self, layers):
        with ExitStack() as stack:
            stack.enter_context(mounted(layers.mnt, layers.lowers[0], layers.upper, layers.mnt))
            file = stack.enter_context(open(layers.mnt / "file", "w"))
            succeed("umount", "--lazy", layers.mnt)
            assert not is_mounted(layers.mnt)
            assert os.listdir(layers.mnt) == []
            assert daemon_pids(layers.mnt)
            file.write("finished")
        assert (layers.upper / "file").read_text() == "finished"
        wait_until(lambda: not daemon_pids(layers.mnt))

    @pytest.mark.root
    def test_a_copy_in_another_mount_namespace_is_told_and_not_waited_for(self, layers):
        succeed("mount", layers.lowers[0], layers.upper, layers.mnt)
        pids = daemon_pids(layers.mnt)
        with private_copy_of_all_mounts() as pid:
            done = unionfuse("umount", layers.mnt, timeout=20)
            assert done.returncode == 0
            assert f"process {pid} (sleep) has it in its mount namespace" in done.stderr
            assert done.stderr.count("\n") == 1
            assert not is_mounted(layers.mnt)
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))

    @pytest.mark.root
    def test_a_second_place_of_the_mount_is_told_and_not_waited_for(self, layers, tmp_path):
        second = tmp_path / "second"
        second.mkdir()
        succeed("mount", layers.lowers[0], layers.upper, layers.mnt)
        pids = daemon_pids(layers.mnt)
        subprocess.run(["mount", "--bind", layers.mnt, second], check=True, timeout=10)
        try:
            done = unionfuse("umount", layers.mnt, timeout=20)
            assert done.returncode == 0
            assert f"it is mounted on {second} too" in done.stderr
        finally:
            subprocess.run(["umount", second], check=True, timeout=10)
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))

    def test_a_directory_with_nothing_mounted_on_it(self, layers):
        done = unionfuse("umount", layers.mnt)
        assert complaint(done) == f"{layers.mnt}: no unionfuse mount there"

    def test_a_path_that_does_not_exist(self):
        assert complaint(unionfuse("umount", "nowhere")) == "nowhere: no unionfuse mount there"

    @pytest.mark.root
    def test_a_mount_of_another_kind_is_left_alone(self, layers):
        with tmpfs(layers.mnt):
            done = unionfuse("umount", layers.mnt)
            assert complaint(done) == f"{layers.mnt}: no unionfuse mount there"
            assert is_mounted(layers.mnt)

    def test_a_path_inside_the_mount_is_no_mount(self, layers):
        (layers.lowers[0] / "inside").mkdir()
        with mounted(layers.mnt, layers.lowers[0], layers.upper, layers.mnt):
            inside = layers.mnt / "inside"
            assert complaint(unionfuse("umount", inside)) == f"{inside}: no unionfuse mount there"

    @pytest.mark.parametrize("option", [[], ["--lazy"]], ids=["at once", "lazy"])
    def test_a_dead_mount_goes(self, layers, option):
        with mounted(layers.mnt, layers.lowers[0], layers.upper, layers.mnt):
            kill_daemon(layers.mnt)
            succeed("umount", *option, layers.mnt)
            assert not is_mounted(layers.mnt)
            assert os.listdir(layers.mnt) == []


class TestLs:
    def entry(self, mountpoint: Path) -> dict[str, object]:
        [found] = [
            entry
            for entry in json.loads(succeed("ls", "--json"))
            if entry["mountpoint"] == str(mountpoint)
        ]
        return found

    def block(self, mountpoint: Path) -> list[str]:
        """Return the lines about one mount."""
        lines = succeed("ls").splitlines()
        begin = lines.index(str(mountpoint)) + 1
        rest = [n for n, line in enumerate(lines) if n >= begin and not line.startswith(" ")]
        return [line.strip() for line in lines[begin : rest[0] if rest else None]]

    def test_a_mount_is_shown_with_its_layers_session_and_pid(self, layers):
        lowers = ":".join(map(str, layers.lowers))
        with mounted(layers.mnt, "--workdir", layers.work, lowers, layers.upper, layers.mnt):
            [pid] = daemon_pids(layers.mnt)
            entry = self.entry(layers.mnt)
            assert entry["lowers"] == [str(lower) for lower in layers.lowers]
            assert entry["upper"] == str(layers.upper)
            assert entry["workdir"] == str(layers.work)
            assert entry["session"] in ("pyfuse3", "kernel")
            assert entry["pid"] == pid
            assert self.block(layers.mnt) == [
                *(f"lower    {lower}" for lower in layers.lowers),
                f"upper    {layers.upper}",
                f"workdir  {layers.work}",
                f"session  {entry['session']}, pid {pid}",
            ]
        assert str(layers.mnt) not in succeed("ls")

    def test_a_mount_without_an_upper_shows_none(self, layers):
        with mounted(layers.mnt, "--read-only", layers.lowers[0], layers.mnt):
            assert self.entry(layers.mnt)["upper"] is None
            assert not [line for line in self.block(layers.mnt) if line.startswith("upper")]

    def test_a_mount_whose_daemon_was_killed_is_shown_as_such(self, layers):
        with mounted(layers.mnt, layers.lowers[0], layers.upper, layers.mnt):
            kill_daemon(layers.mnt)
            assert self.entry(layers.mnt)["pid"] == 0
            [line] = self.block(layers.mnt)
            assert "dead" in line

    @pytest.mark.once
    @pytest.mark.root
    def test_without_mounts_there_is_nothing(self):
        nothing = in_private_mounts("umount -l -a -t fuse.unionfuse || test $? = 32")
        done = unionfuse("ls", prefix=nothing)
        assert (done.returncode, done.stdout) == (0, "")
        assert json.loads(unionfuse("ls", "--json", prefix=nothing).stdout) == []

    @pytest.mark.once
    def test_the_same_is_run_by_its_script(self):
        script = Path(sys.executable).with_name("unionfuse")
        if not script.exists():
            pytest.skip(f"the package is not installed beside {sys.executable}")
        done = command(script, "ls", "--json")
        assert done.returncode == 0
        assert isinstance(json.loads(done.stdout), list)
