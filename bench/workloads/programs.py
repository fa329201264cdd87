"""Programs that people run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from bench.digest import tree_digest
from bench.tree import GIT_ENV, N_REPOSITORY, PYTHON
from bench.workloads import floors
from bench.workloads.base import (
    ENV,
    TIMEOUT,
    WRITTEN_BACK,
    Context,
    Workload,
    command,
    expect,
    times,
)

# Without its virtual environment: the library of the interpreter itself is what is on the mount.
PROGRAM = str(Path(getattr(sys, "_base_executable", sys.executable)).resolve())
MODULES = (
    "asyncio, email.mime.multipart, http.server, xml.dom.minidom, logging.config, unittest.mock, "
    "urllib.request, decimal, tarfile, zipfile, csv, argparse, multiprocessing.pool, pydoc, "
    "ipaddress, json, statistics, difflib, html.parser, configparser, tomllib, fractions"
)
HEADERS = (
    "assert ctype dirent dlfcn errno fcntl fnmatch glob grp inttypes limits locale math "
    "poll pthread pwd regex sched semaphore setjmp signal spawn stdarg stddef stdint stdio stdlib "
    "string strings sys/epoll sys/mman sys/socket sys/stat sys/time sys/types sys/wait time "
    "unistd wchar"
)
N_SOURCES = 5
N_PACKAGE = 1_000
# dpkg looks for its helpers in the directories of the administrator.
DPKG_ENV = {**ENV, "PATH": f"{ENV['PATH']}:/usr/sbin:/sbin", "DEBIAN_FRONTEND": "noninteractive"}


def git(context: Context, *arguments: str) -> bytes:
    return command(context, "git", *arguments, env=GIT_ENV)


def clone(context: Context) -> list[bytes]:
    """Clone, then ask for the status twice."""
    git(context, "clone", "-q", str(context.tree.repository), "new")
    # Git reads again every file that is not older, in whole seconds, than its index. After a
    # quick clone these are all; after a slow one that would be a matter of chance.
    os.utime(context.mnt / "new/.git/index", (1, 1))
    return [git(context, "-C", "new", "status", "--porcelain") for _ in range(2)]


def check_clone(context: Context, statuses: list[bytes]) -> None:
    expect("status after clone", statuses, [b"", b""])
    expect("HEAD", *(
        git(context, "-C", where, "rev-parse", "HEAD")
        for where in ("new", str(context.tree.repository))
    ))  # fmt: skip
    files = sum(len(names) for at, _, names in os.walk(context.mnt / "new") if "/.git" not in at)
    expect("files", files, N_REPOSITORY)


def clone_upper(context: Context) -> None:
    """Put a checkout into the upper, older than its index, so that git trusts what it noted."""
    new = context.upper / "new"
    subprocess.run(
        ["git", "clone", "-q", str(context.tree.repository), str(new)],
        check=True,
        env=GIT_ENV,
        timeout=TIMEOUT,
    )
    os.utime(new / ".git/index", (1, 1))


def status(context: Context) -> bytes:
    return git(context, "-C", "new", "status", "--porcelain")


def check_status(_context: Context, printed: bytes) -> None:
    expect("status", printed, b"")


def python_start(context: Context) -> bytes:
    """Start a Python whose whole library is on the mount, as in a container."""
    env = {**ENV, "PYTHONHOME": str(context.mnt / "usr")}
    script = f"import {MODULES}; print(asyncio.__file__)"
    return command(context, PROGRAM, "-S", "-c", script, env=env)


def check_start(context: Context, printed: bytes) -> None:
    wanted = context.mnt / f"usr/lib/{PYTHON}/asyncio/__init__.py"
    expect("where the library is", printed.decode().strip(), str(wanted))


def write_sources(context: Context) -> None:
    """Write the C files, each with all the headers."""
    (context.mnt / "new").mkdir()
    headers = "".join(f"#include <{header}.h>\n" for header in HEADERS.split())
    for number in range(N_SOURCES):
        (context.mnt / f"new/file{number}.c").write_text(
            f"{headers}int f{number}(void) {{ return {number}; }}\n"
        )


def compile_sources(context: Context) -> None:
    own = command(context, "gcc", "-print-file-name=include").decode().strip()
    multiarch = command(context, "gcc", "-print-multiarch").decode().strip()
    include = context.mnt / "usr/include"
    where = ["-nostdinc", "-isystem", own, "-isystem", f"{include}/{multiarch}"]
    where += ["-isystem", str(include)]
    for number in range(N_SOURCES):
        source = f"new/file{number}"
        command(context, "gcc", *where, "-c", f"{source}.c", "-o", f"{source}.o")


def check_compiled(context: Context, _result: None) -> None:
    for number in range(N_SOURCES):
        head = (context.mnt / f"new/file{number}.o").read_bytes()[:4]
        expect(f"magic of file{number}.o", head, b"\x7fELF")


def build_package(context: Context) -> None:
    """Build a Debian package of 1,000 headers, and a root to install it into."""
    package = context.scratch / "package"
    (package / "DEBIAN").mkdir(parents=True)
    (package / "DEBIAN/control").write_text(
        "Package: bench\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b>\nDescription: b\n"
    )
    headers = sorted((context.tree.merged / "usr/include").rglob("*.h"))[:N_PACKAGE]
    for number, header in enumerate(headers):
        target = package / f"opt/bench/d{number % 20}/{number}.h"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(header, target)
    build: list[str | Path] = [
        "dpkg-deb",
        "-Znone",
        "--root-owner-group",
        "-b",
        package,
        f"{package}.deb",
    ]
    command(context, *build)
    for directory in ("info", "updates", "triggers"):
        (context.mnt / "var/lib/dpkg" / directory).mkdir(parents=True)
    for file in ("status", "available"):
        (context.mnt / "var/lib/dpkg" / file).touch()


def install_package(context: Context) -> None:
    package = context.scratch / "package.deb"
    log = context.scratch / "dpkg.log"
    install: list[str | Path] = ["dpkg", f"--root={context.mnt}", f"--log={log}", "-i", package]
    command(context, *install, env=DPKG_ENV)


def check_installed(context: Context, _result: None) -> None:
    status = (context.mnt / "var/lib/dpkg/status").read_text()
    expect("package is installed", "Status: install ok installed" in status, True)
    wanted = tree_digest(context.scratch / "package/opt")
    expect("files of the package", tree_digest(context.mnt / "opt"), wanted)


def check_installed_upper(context: Context, _result: None) -> None:
    wanted = tree_digest(context.scratch / "package/opt")
    expect("files in the upper", tree_digest(context.upper / "opt", ignore=".wh."), wanted)


WORKLOADS = (
    Workload(
        name="git-clone",
        does=f"clones a repository of {N_REPOSITORY:,} files with git, asks for its status twice",
        run=clone,
        verify=check_clone,
        unsteady=WRITTEN_BACK,
        limits={"cached": 18_200, "passthrough": 18_600},
        floor=floors.capabilities(18_200, 18_600, N_REPOSITORY),
        needs=("git",),
        in_requests=True,
        quick=True,
    ),
    Workload(
        name="dpkg",
        does="installs a Debian package of 1,000 files",
        prepare=build_package,
        run=install_package,
        verify=check_installed,
        unsteady=WRITTEN_BACK,
        verify_upper=check_installed_upper,
        needs=("dpkg", "dpkg-deb"),
        quick=True,
    ),
    *times(
        Workload(
            name="git-status",
            does=f"asks git for the status of a checkout of {N_REPOSITORY:,} files",
            before_mount=clone_upper,
            run=status,
            verify=check_status,
            needs=("git",),
            quick=True,
        )
    ),
    *times(
        Workload(
            name="python-start",
            does="starts Python and imports 130 modules",
            run=python_start,
            verify=check_start,
            reads_only=True,
            quick=True,
        )
    ),
    *times(
        Workload(
            name="gcc",
            does="compiles 5 C files with 40 headers each",
            prepare=write_sources,
            run=compile_sources,
            verify=check_compiled,
            needs=("gcc",),
            quick=True,
        )
    ),
)
