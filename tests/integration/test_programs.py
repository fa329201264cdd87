"""Real programs work on a union as they do on any filesystem.

Each test looks at what the program made, not only at its exit status; `served` checks beside it
that no lower was touched.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import shutil
import sqlite3
import subprocess
import sys
import zipfile
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.support.mounts import Layers
from tests.support.programs import run, served
from tests.support.sessions import KERNEL_AUTO, KERNEL_PASSTHROUGH, PYFUSE3
from tests.support.tree import diff, snapshot

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.fuse

HOUR_NS = 3_600 * 10**9


def differences(expected: Path, actual: Path) -> list[str]:
    """Compare two trees by all that can be seen of them but where they lie."""
    options = {"private_xattrs": False, "directory_times": True}
    return diff(snapshot(expected, **options), snapshot(actual, **options))


def deal(source: Path, layers: Layers) -> None:
    """Copy `source` to `tree` in the lowers: each has all its directories and some of its files."""
    for number, lower in enumerate(layers.lowers):
        tree = lower / "tree"
        run("cp", "-a", source, tree)
        for path in source.rglob("*"):
            stat = path.lstat()
            # names of one file stay together, as a hard link cannot span two layers
            chosen = stat.st_mtime_ns // HOUR_NS if stat.st_nlink > 1 else len(path.name)
            is_directory = path.is_dir() and not path.is_symlink()
            if not is_directory and chosen % len(layers.lowers) != number:
                (tree / path.relative_to(source)).unlink()
        # the directories that lost names by it get their times back
        for path in (source, *source.rglob("*")):
            if path.is_dir() and not path.is_symlink():
                shutil.copystat(path, tree / path.relative_to(source))


def pack(tree: Path, archive: Path) -> None:
    run("tar", "--create", "--format=posix", "--sparse", "-f", archive, "-C", tree, ".")


def unpack(archive: Path, target: Path) -> None:
    run("tar", "--extract", "--preserve-permissions", "-f", archive, "-C", target)


class TestTar:
    def test_a_real_tree_packed_from_the_union_is_the_tree(self, layers, real_tree, tmp_path):
        deal(real_tree, layers)
        with served(layers) as mnt:
            pack(mnt / "tree", tmp_path / "archive")
        (tmp_path / "out").mkdir()
        unpack(tmp_path / "archive", tmp_path / "out")
        assert differences(real_tree, tmp_path / "out") == []

    def test_a_real_tree_unpacked_on_the_union_is_the_tree(self, layers, real_tree, tmp_path):
        pack(real_tree, tmp_path / "archive")
        with served(layers) as mnt:
            unpack(tmp_path / "archive", mnt)
            assert differences(real_tree, mnt) == []
        with served(layers) as mnt:
            assert differences(real_tree, mnt) == []


GIT = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_SYSTEM": "/dev/null",
    "GIT_AUTHOR_NAME": "A",
    "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_COMMITTER_NAME": "A",
    "GIT_COMMITTER_EMAIL": "a@example.org",
}
N_COMMITS = 300


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a git repository of 300 commits over 100 files in 10 directories."""
    path = tmp_path_factory.mktemp("git") / "repository"
    stream = []
    for commit in range(N_COMMITS):
        stream.append(f"commit refs/heads/main\ncommitter A <a@example.org> {10**9 + commit} +0000")
        stream.append("data 4\nwork")
        for file in (commit % 100, commit * 7 % 100):
            text = f"line {commit} of {file}\n" * (1 + commit % 40)
            stream.append(f"M 100644 inline d{file % 10}/f{file}\ndata {len(text)}\n{text}")
    run("git", "init", "-q", "--initial-branch=main", path, env=GIT)
    (path.parent / "stream").write_text("\n".join(stream) + "\n")
    run("sh", "-c", "git fast-import --quiet < ../stream", cwd=path, env=GIT)
    run("git", "reset", "-q", "--hard", cwd=path, env=GIT)
    return path


class TestGit:
    def test_a_clone_is_clean_and_stays_whole_when_packed(self, layers, repository):
        with served(layers) as mnt:
            clone = mnt / "clone"
            run("git", "clone", "-q", "--no-local", repository, clone, env=GIT)
            assert run("git", "status", "--porcelain", cwd=clone, env=GIT) == ""
            run("git", "gc", "-q", cwd=clone, env=GIT)
            run("git", "fsck", "--full", "--strict", cwd=clone, env=GIT)
            commits = run("git", "rev-list", "--count", "HEAD", cwd=clone, env=GIT)
            assert int(commits) == N_COMMITS
            assert run("git", "status", "--porcelain", cwd=clone, env=GIT) == ""

    def test_a_repository_of_a_lower_is_worked_in(self, layers, repository):
        run("cp", "-a", repository, layers.lowers[1] / "repository")
        with served(layers) as mnt:
            work = mnt / "repository"
            assert run("git", "status", "--porcelain", cwd=work, env=GIT) == ""
            run("git", "checkout", "-q", "-b", "topic", "HEAD~200", cwd=work, env=GIT)
            run("sh", "-c", "mkdir moved && git mv d1/* moved", cwd=work, env=GIT)
            (work / "moved" / "new").write_text("new\n")
            run("git", "add", "--all", cwd=work, env=GIT)
            run("git", "commit", "-q", "-m", "topic", cwd=work, env=GIT)
            run("git", "merge", "-q", "--no-edit", "main", cwd=work, env=GIT)
            run("git", "gc", "-q", "--prune=now", cwd=work, env=GIT)
            run("git", "fsck", "--full", cwd=work, env=GIT)
        with served(layers) as mnt:
            work = mnt / "repository"
            assert run("git", "status", "--porcelain", cwd=work, env=GIT) == ""
            # what lies in d1 on main moved along, and what the topic made is there
            assert run("git", "ls-files", "d1", cwd=work, env=GIT) == ""
            assert (work / "moved" / "new").read_text() == "new\n"


class TestCompiling:
    def test_make_builds_runs_and_rebuilds_what_changed(self, layers):
        source = layers.lowers[0] / "src"
        source.mkdir()
        parts = range(8)
        for part in parts:
            (source / f"part{part}.c").write_text(
                f'#include "parts.h"\nint part{part}(void) {{ return FACTOR * {part}; }}\n'
            )
        declared = "".join(f"int part{part}(void);\n" for part in parts)
        (source / "parts.h").write_text(f"#define FACTOR 1\n{declared}")
        called = " + ".join(f"part{part}()" for part in parts)
        (source / "main.c").write_text(
            '#include <stdio.h>\n#include "parts.h"\n'
            f'int main(void) {{ printf("%d\\n", {called}); return 0; }}\n'
        )
        (source / "Makefile").write_text(
            "OBJECTS = $(patsubst %.c,%.o,$(wildcard *.c))\n"
            "sum: $(OBJECTS)\n\tcc -o $@ $^\n$(OBJECTS): parts.h\n%.o: %.c\n\tcc -g -c -o $@ $<\n"
        )
        with served(layers) as mnt:
            work = mnt / "src"
            run("make", "-j2", cwd=work)
            assert run(work / "sum") == "28\n"
            assert run("make", "--question", cwd=work) == ""
            header = work / "parts.h"
            header.write_text(header.read_text().replace("FACTOR 1", "FACTOR 2"))
            run("make", "-j2", cwd=work)
            assert run(work / "sum") == "56\n"
            run("strip", "sum", cwd=work)
            assert run(work / "sum") == "56\n"


# Run by two processes at once on one database: each adds to a counter and writes a row of its own.
SQLITE_WRITER = """
import sqlite3, sys
path, writer, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
database = sqlite3.connect(path, timeout=60, isolation_level=None)
for round in range(rounds):
    database.execute("BEGIN IMMEDIATE")
    [value] = database.execute("SELECT value FROM counter").fetchone()
    database.execute("UPDATE counter SET value = ?", [value + 1])
    database.execute("INSERT INTO line VALUES (?, ?, ?)", [writer, round, writer * 2000])
    database.execute("COMMIT")
database.close()
"""
ROUNDS = 150


def make_database(path: Path, journal: str) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"PRAGMA journal_mode = {journal}")
        database.execute("CREATE TABLE counter (value INTEGER)")
        database.execute("CREATE TABLE line (writer TEXT, round INTEGER, text TEXT)")
        database.execute("INSERT INTO counter VALUES (0)")
        database.commit()


def write_from_two_processes(path: Path) -> None:
    command = [sys.executable, "-c", SQLITE_WRITER, path]
    writers = [
        subprocess.Popen([*command, name, str(ROUNDS)], stderr=subprocess.PIPE, text=True)
        for name in ("a", "b")
    ]
    for writer in writers:
        _, complaints = writer.communicate(timeout=90)
        assert writer.returncode == 0, complaints


def assert_holds_all_that_was_written(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert database.execute("SELECT value FROM counter").fetchall() == [(2 * ROUNDS,)]
        counted = (
            "SELECT writer, count(DISTINCT round), sum(length(text)) FROM line GROUP BY writer"
        )
        assert database.execute(counted).fetchall() == [
            ("a", ROUNDS, ROUNDS * 2000),
            ("b", ROUNDS, ROUNDS * 2000),
        ]


@pytest.mark.parametrize("journal", ["wal", "delete", "truncate"])
class TestSqlite:
    def test_two_writers_lose_nothing(self, layers, journal):
        with served(layers) as mnt:
            make_database(mnt / "database", journal)
            write_from_two_processes(mnt / "database")
            assert_holds_all_that_was_written(mnt / "database")
        assert_holds_all_that_was_written(layers.upper / "database")

    def test_a_database_of_a_lower_is_changed_in_the_upper(self, layers, journal, tmp_path):
        database = layers.lowers[1] / "database"
        make_database(database, journal)
        before = database.read_bytes()
        with served(layers) as mnt:
            write_from_two_processes(mnt / "database")
            assert_holds_all_that_was_written(mnt / "database")
        with served(layers) as mnt:
            assert_holds_all_that_was_written(mnt / "database")
        assert database.read_bytes() == before


@pytest.mark.slow
@pytest.mark.sessions(PYFUSE3, KERNEL_AUTO)  # takes long
class TestPython:
    def test_a_virtual_environment_takes_a_wheel(self, layers, tmp_path):
        wheel = tmp_path / "greeting-1.0-py3-none-any.whl"
        about = "Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n"
        files = {
            "greeting/__init__.py": "def main():\n    print('hello from the wheel')\n",
            "greeting-1.0.dist-info/METADATA": about,
            "greeting-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: hand\n"
            "Root-Is-Purelib: true\nTag: py3-none-any\n",
            "greeting-1.0.dist-info/entry_points.txt": "[console_scripts]\ngreet = greeting:main\n",
        }
        files["greeting-1.0.dist-info/RECORD"] = "".join(f"{name},,\n" for name in files)
        with zipfile.ZipFile(wheel, "w") as archive:
            for name, text in files.items():
                archive.writestr(name, text)

        pip = {"PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        with served(layers) as mnt:
            environment = mnt / "environment"
            run(sys.executable, "-m", "venv", environment)
            python = environment / "bin" / "python"
            run(python, "-m", "pip", "install", "--no-index", wheel, env=pip)
            assert run(environment / "bin" / "greet") == "hello from the wheel\n"
            run(python, "-m", "pip", "uninstall", "--yes", "greeting", env=pip)
            assert not (environment / "bin" / "greet").exists()
            assert run(python, "-m", "pip", "check", env=pip) != ""


@pytest.fixture(scope="session")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a Debian root filesystem that holds the packages to install, but not installed."""
    root = tmp_path_factory.mktemp("debian") / "root"
    download = 'chroot "$1" apt-get install --yes --no-install-recommends --download-only'
    run(
        "mmdebstrap",
        "--mode=root",
        "--variant=apt",
        "--skip=cleanup/apt/lists",
        "--skip=cleanup/apt/cache",
        f"--customize-hook={download} hello",
        f"--customize-hook={download} --reinstall sed",
        "bookworm",
        root,
        timeout=400,
    )
    return root


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.timeout(600)
class TestDebian:
    @staticmethod
    def within(root: Path, *command: str) -> str:
        """Run a command in a root filesystem, with a /proc that goes when the command has ended."""
        enter = 'mount -t proc proc "$0/proc" && exec chroot "$0" "$@"'
        path = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive"}
        return run("unshare", "--mount", "sh", "-c", enter, root, *command, env=path, timeout=200)

    @pytest.fixture
    def rootfs(self, layers: Layers, debian: Path) -> Layers:
        return Layers(
            lowers=(layers.lowers[0], debian),
            upper=layers.upper,
            work=layers.work,
            mnt=layers.mnt,
            log=layers.log,
        )

    def test_apt_installs_and_removes_a_package(self, rootfs):
        with served(rootfs) as mnt:
            install = "apt-get install --yes --no-install-recommends --no-download hello"
            self.within(mnt, *install.split())
            assert self.within(mnt, "hello") == "Hello, world!\n"
            assert self.within(mnt, "dpkg", "--verify", "hello") == ""
            self.within(mnt, "apt-get", "purge", "--yes", "hello")
            assert not (mnt / "usr/bin/hello").exists()
            assert self.within(mnt, "dpkg", "--audit") == ""

    def test_dpkg_replaces_the_files_of_a_lower(self, rootfs):
        with served(rootfs) as mnt:
            before = (mnt / "bin/sed").stat()
            [package] = (mnt / "var/cache/apt/archives").glob("sed_*.deb")
            self.within(mnt, "dpkg", "--install", f"/{package.relative_to(mnt)}")
            assert self.within(mnt, "dpkg", "--verify", "sed") == ""
            assert self.within(mnt, "sh", "-c", "echo lower | sed s/lower/upper/") == "upper\n"
            assert (mnt / "bin/sed").stat().st_ino != before.st_ino
            assert self.within(mnt, "dpkg", "--audit") == ""
        assert (rootfs.upper / "usr/bin/sed").exists() or (rootfs.upper / "bin/sed").exists()


@pytest.fixture
def rich_tree(real_tree: Path, tmp_path: Path) -> Path:
    """Make a tree with all that `rsync -aHAX` keeps: links, ACLs, xattrs, owners, devices."""
    tree = tmp_path / "rich"
    run("cp", "-a", real_tree / "email", tree)
    run("cp", "-a", real_tree / "special", tree / "special")
    run("setfacl", "-m", "user:1001:rwx,group:2000:r-x", tree / "header.py", tree / "mime")
    run("setfacl", "-d", "-m", "user:1002:r-x,mask:rwx", tree / "mime")
    run("setfattr", "-n", "user.note", "-v", "of a file", tree / "parser.py")
    run("setfattr", "-n", "user.note", "-v", "of a directory", tree / "mime")
    run("setfattr", "-n", "trusted.note", "-v", "for root alone", tree / "parser.py")
    run("setfattr", "-h", "-n", "trusted.note", "-v", "of a link", tree / "special" / "upwards")
    os.mkfifo(tree / "fifo", 0o620)
    os.mknod(tree / "null", 0o20666, os.makedev(1, 3))
    os.link(tree / "fifo", tree / "fifo-again")
    os.chown(tree / "charset.py", 1001, 2000)
    os.chown(tree / "special" / "dangling", 1002, 1002, follow_symlinks=False)
    for path in (*tree.rglob("*"), tree):
        os.utime(path, ns=(0, 500_000_001 * 10**9 + 7), follow_symlinks=False)
    return tree


@pytest.mark.root
class TestRsync:
    EVERYTHING = ("rsync", "-aHAX", "--sparse", "--numeric-ids", "--checksum", "--itemize-changes")

    def left_to_do(self, source: Path, target: Path) -> list[str]:
        # rsync cannot set user xattrs on a symlink and does not list them, so nothing is filtered
        return run(*self.EVERYTHING, "-n", "--delete", f"{source}/", f"{target}/").splitlines()

    def test_a_tree_copied_onto_the_union_is_the_same(self, layers, rich_tree):
        with served(layers) as mnt:
            run(*self.EVERYTHING, f"{rich_tree}/", f"{mnt}/")
            assert self.left_to_do(rich_tree, mnt) == []
            assert differences(rich_tree, mnt) == []
        with served(layers) as mnt:
            assert self.left_to_do(rich_tree, mnt) == []

    def test_a_tree_copied_from_the_union_is_the_same(self, layers, rich_tree, tmp_path):
        run("cp", "-a", rich_tree, layers.lowers[0] / "tree")
        out = tmp_path / "out"
        with served(layers) as mnt:
            run(*self.EVERYTHING, f"{mnt}/tree/", f"{out}/")
            assert self.left_to_do(mnt / "tree", out) == []
        assert differences(rich_tree, out) == []

    def test_a_tree_of_a_lower_is_brought_up_to_date(self, layers, rich_tree, tmp_path):
        run("cp", "-a", rich_tree, layers.lowers[0] / "tree")
        newer = tmp_path / "newer"
        run("cp", "-a", rich_tree, newer)
        (newer / "parser.py").write_text("# changed\n")
        shutil.rmtree(newer / "mime")
        (newer / "mime").write_text("a file, where a directory was\n")
        (newer / "charset.py").unlink()
        (newer / "charset.py").mkdir(0o2750)
        with served(layers) as mnt:
            run(*self.EVERYTHING, "--delete", f"{newer}/", f"{mnt}/tree/")
            assert self.left_to_do(newer, mnt / "tree") == []
            assert differences(newer, mnt / "tree") == []


class TestCoreutils:
    def test_cp_keeps_content_and_holes_both_ways(self, layers, tmp_path):
        size = 64 << 20
        source = tmp_path / "sparse"
        with open(source, "wb") as file:
            file.write(os.urandom(100_000))
            file.seek(size - 100_000)
            file.write(os.urandom(100_000))
        copy = ("cp", "--reflink=auto", "--sparse=always")
        run(*copy, source, layers.lowers[0] / "lower")
        with served(layers) as mnt:
            run(*copy, source, mnt / "in")
            run(*copy, mnt / "lower", mnt / "within")
            run(*copy, mnt / "lower", tmp_path / "out")
            wanted = hashlib.sha256(source.read_bytes()).digest()
            for made in (mnt / "in", mnt / "within", tmp_path / "out"):
                assert made.stat().st_size == size
                assert hashlib.sha256(made.read_bytes()).digest() == wanted
                [kilobytes, _] = run("du", "-k", made).split()
                assert int(kilobytes) < 1000

    def test_du_counts_what_a_plain_copy_counts(self, layers, real_tree, tmp_path):
        deal(real_tree, layers)
        # directories are left out, as their sizes are each filesystem's own affair
        count = "find . ! -type d -print0 | sort -z | du -c --files0-from=- --block-size=1"
        with served(layers) as mnt:
            for option in ("--apparent-size", "--apparent-size --count-links"):
                command = ("sh", "-c", f"{count} {option}")
                assert run(*command, cwd=mnt / "tree") == run(*command, cwd=real_tree)

    EXPRESSIONS = (
        "-type d",
        "-type f -size +40k",
        "-type f -size -2k",
        "-name *.py -path ./*/*/*",
        "-perm -u+x -type f",
        "-perm 4711",
        "-perm /7000",
        "-type f -links +1",
        "-type d -empty",
        "-type f -empty",
        "-type l -lname ../*",
        "-xtype l",
        "-newer ./special/original",
        "-samefile ./special/original",
        "-maxdepth 2 -regex .*/[a-f][^/]*",
        "-not -perm -004",
        "-depth -mindepth 3 -iname *TEST*",
        "-name email -prune -o -type f",
    )

    def test_find_finds_what_it_finds_in_a_plain_copy(self, layers, real_tree):
        deal(real_tree, layers)
        form = "%P %y %m %U %G %T@ %l\n"
        with served(layers) as mnt:
            for expression in self.EXPRESSIONS:
                command = ("find", ".", *expression.split(), "-printf", form)
                expected, found = (
                    sorted(run(*command, cwd=root).splitlines())
                    for root in (real_tree, mnt / "tree")
                )
                assert expected, f"{expression} finds nothing and so shows nothing"
                assert found == expected, expression

    def test_rm_removes_a_tree_of_the_lowers_for_good(self, layers, real_tree):
        deal(real_tree, layers)
        with served(layers) as mnt:
            run("rm", "-rf", mnt / "tree")
            assert os.listdir(mnt) == []
        with served(layers) as mnt:
            assert os.listdir(mnt) == []
            (mnt / "tree").mkdir()
            assert os.listdir(mnt / "tree") == []
        with served(layers) as mnt:
            assert os.listdir(mnt / "tree") == []

    @pytest.mark.sessions(PYFUSE3, KERNEL_PASSTHROUGH)  # takes long
    def test_mv_moves_a_tree_of_the_lowers(self, layers, real_tree):
        deal(real_tree, layers)
        with served(layers) as mnt:
            (mnt / "elsewhere").mkdir()
            run("mv", mnt / "tree", mnt / "elsewhere" / "moved")
            assert differences(real_tree, mnt / "elsewhere" / "moved") == []
            # the second move is of a tree that lies in the upper alone
            run("mv", mnt / "elsewhere" / "moved", mnt / "tree")
            assert differences(real_tree, mnt / "tree") == []
        with served(layers) as mnt:
            assert sorted(os.listdir(mnt)) == ["elsewhere", "tree"]
            assert differences(real_tree, mnt / "tree") == []


class TestMappedFiles:
    PAGE = mmap.PAGESIZE

    def test_a_private_mapping_changes_memory_alone(self, layers):
        (layers.lowers[0] / "file").write_bytes(b"a" * 4 * self.PAGE)
        with served(layers) as mnt:
            with (
                open(mnt / "file", "rb") as file,
                mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as memory,
            ):
                memory[self.PAGE : self.PAGE + 3] = b"new"
                assert (mnt / "file").read_bytes() == b"a" * 4 * self.PAGE
            assert not (layers.upper / "file").exists()

    @pytest.mark.parametrize("where", ["lower", "upper"])
    def test_a_shared_mapping_changes_the_file(self, layers, where):
        directory = layers.lowers[0] if where == "lower" else layers.upper
        (directory / "file").write_bytes(b"a" * 4 * self.PAGE)
        with served(layers) as mnt:
            with (
                open(mnt / "file", "r+b") as file,
                mmap.mmap(file.fileno(), 0) as memory,
            ):
                memory[self.PAGE : self.PAGE + 3] = b"new"
                memory.flush()
                assert (mnt / "file").read_bytes()[self.PAGE :][:4] == b"newa"
                os.pwrite(file.fileno(), b"written", 0)
                assert memory[:8] == b"writtena"
            wanted = b"written".ljust(self.PAGE, b"a") + b"new".ljust(3 * self.PAGE, b"a")
            assert (mnt / "file").read_bytes() == wanted
        assert (layers.upper / "file").read_bytes() == wanted

    def test_a_mapping_outlives_the_name_of_its_file(self, layers):
        (layers.lowers[0] / "file").write_bytes(b"a" * 64 * self.PAGE)
        with served(layers) as mnt:
            with (
                open(mnt / "file", "r+b") as file,
                mmap.mmap(file.fileno(), 0) as memory,
            ):
                (mnt / "file").unlink()
                memory[:3] = b"new"
                memory.flush()
                assert memory[:4] == b"newa"
                assert memory[63 * self.PAGE :] == b"a" * self.PAGE
                assert os.fstat(file.fileno()).st_nlink == 0
            assert os.listdir(mnt) == []
