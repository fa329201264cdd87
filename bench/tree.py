"""The tree that is measured: five layers made from what a real root filesystem has in it.

    usr/    6,800 files of Python's library and of /usr/include, and 1,200 symlinks of /usr/share
    small/  5,000 files of up to 4 KB in 50 directories
    big     256 MiB

Made once and kept: `merged` is what a union of the layers shows, `lower1` (the topmost) to `lower5`
are the layers. A directory's files lie in one layer, a quarter of them elsewhere; some files have
an older version below them, some names are whited out. Where a file goes depends on its path alone.

A smaller one is the same on every machine: 300 made files in usr/, and a big file of 1 MiB. It is
for what must be equal everywhere, the counts of requests.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import stat
import subprocess
import sys
import sysconfig
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from zlib import crc32

from bench.digest import tree_digest, walk
from bench.errors import BenchError

if TYPE_CHECKING:
    from collections.abc import Iterator

FORMAT = 6  # a kept tree of another format is made anew
N_LOWERS = 5
N_USR = 6_800
N_LINKS = 1_200
MIN_LINKS = 2  # in a directory; else the tree would be mostly directories
N_MADE = 300  # files in the usr of the tree that is the same everywhere
N_MADE_DIRS = 15
N_MADE_LINKS = 20
N_SMALL = 5_000
N_SMALL_DIRS = 50
N_REPOSITORY = 2_300
BIG_MIB = 256
MAX_USR_FILE = 4 << 20  # static libraries and the like say nothing about a union
MAX_REPOSITORY_FILE = 200_000

PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
_NOT_WANTED = {"site-packages", "dist-packages", "test", "tests", "idlelib"}
_NEEDED_BY_C = ("sys", "bits", "gnu", "asm", "asm-generic", "linux")


@dataclass(frozen=True)
class Tree:
    """Where the parts are, and what must be found in them."""

    base: Path
    files: int  # all that is no directory
    directories: int
    bytes: int
    usr_files: int
    usr_directories: int
    digest: str  # of `merged`
    usr_digest: str

    @property
    def merged(self) -> Path:
        """What a union of the lowers shows."""
        return self.base / "merged"

    @property
    def lowers(self) -> tuple[Path, ...]:
        """The layers, topmost first."""
        return tuple(self.base / f"lower{number}" for number in range(1, N_LOWERS + 1))

    @property
    def plain_lowers(self) -> tuple[Path, ...]:
        """The same layers without whiteouts, and without what these hide."""
        return tuple(self.base / f"plain{number}" for number in range(1, N_LOWERS + 1))

    @property
    def usr_tar(self) -> Path:
        """A tar of `merged/usr`."""
        return self.base / "usr.tar"

    @property
    def repository(self) -> Path:
        """A bare git repository of 2,300 files."""
        return self.base / "repository.git"


def obtain(directory: Path, *, made: bool = False) -> Tree:
    """Return the tree kept in `directory`, made now if it is not there.

    Args:
        directory: Where it is kept.
        made: The smaller one, which is the same on every machine.
    """
    name = "made" if made else PYTHON
    base = directory / f"tree-{FORMAT}-{name}"
    if not base.exists():
        for old in directory.glob(f"tree-*-{name}*"):  # of another format, or not finished
            shutil.rmtree(old)
        part = directory / f"{base.name}.part"
        part.mkdir(parents=True)
        _make(part, made=made)
        part.rename(base)
    facts = json.loads((base / "facts.json").read_text())
    return Tree(base=base, **facts)


def big_block(number: int) -> bytes:
    """Return the MiB of `big` that has this number; no two are the same."""
    return number.to_bytes(8, "big") + _BLOCK[8:]


_BLOCK = random.Random(7).randbytes(1 << 20)


def _make(base: Path, *, made: bool) -> None:
    merged = base / "merged"
    merged.mkdir()
    if made:
        _make_same_usr(merged / "usr")
    else:
        _make_usr(merged / "usr")
        _make_links(merged / "usr")
    _make_small(merged / "small")
    with open(merged / "big", "wb") as big:
        big.writelines(big_block(number) for number in range(1 if made else BIG_MIB))
    lowers = [base / f"lower{number}" for number in range(1, N_LOWERS + 1)]
    _spread(merged, lowers)
    _make_plain(merged, lowers)
    subprocess.run(["tar", "-cf", base / "usr.tar", "-C", merged / "usr", "."], check=True)
    if not made:
        _make_repository(merged / "usr", base)
    statuses = [status for _, status in walk(merged)]
    usr = [stat.S_ISDIR(status.st_mode) for _, status in walk(merged / "usr")]
    directories = sum(stat.S_ISDIR(status.st_mode) for status in statuses)
    facts = Tree(
        base=base,
        files=len(statuses) - directories,
        directories=directories,
        bytes=sum(status.st_size for status in statuses if stat.S_ISREG(status.st_mode)),
        usr_files=len(usr) - sum(usr),
        usr_directories=sum(usr),
        digest=tree_digest(merged),
        usr_digest=tree_digest(merged / "usr"),
    )
    kept = asdict(facts)
    del kept["base"]
    (base / "facts.json").write_text(json.dumps(kept, indent=1))


def _make_usr(usr: Path) -> None:
    """Copy 6,800 files of this machine: what Python and C programs need first, then the rest."""
    taken = 0
    for source, path in _candidates():
        target = usr / path
        if os.path.lexists(target):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)
        target.chmod(0o755 if target.stat().st_mode & stat.S_IXUSR else 0o644)
        taken += 1
        if taken == N_USR:
            return
    raise BenchError(f"this machine has only {taken} of the {N_USR} files that are wanted")


def _candidates() -> Iterator[tuple[Path, str]]:
    library = Path(sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix}))
    include = Path("/usr/include")
    multiarch = sysconfig.get_config_var("MULTIARCH") or ""
    yield from _below(library, f"lib/{PYTHON}", _NOT_WANTED)
    for name in _NEEDED_BY_C:
        yield from _below(include / multiarch / name, f"include/{multiarch}/{name}", set())
        yield from _below(include / name, f"include/{name}", set())
    yield from _below(include, "include", set(), depth=1)
    yield from _below(include, "include", set())
    for name in sorted(_NOT_WANTED):
        yield from _below(library / name, f"lib/{PYTHON}/{name}", set())
    yield from _below(Path("/usr/share"), "share", set())


def _below(
    source: Path, target: str, not_wanted: set[str], depth: int | None = None
) -> Iterator[tuple[Path, str]]:
    """Yield the files below `source` that are worth copying, and their paths in usr."""
    tag = f".{sys.implementation.cache_tag}.pyc"
    for directory, names, files in os.walk(source):
        inside = Path(directory).relative_to(source)
        names[:] = sorted(set(names) - not_wanted)
        if depth is not None and len(inside.parts) + 1 >= depth:
            names.clear()
        for name in sorted(files):
            path = Path(directory, name)
            if name.endswith(".pyc") and not name.endswith(tag):
                continue
            if path.is_file() and path.stat().st_size <= MAX_USR_FILE:
                yield path, f"{target}/{inside}/{name}"


def _make_links(usr: Path) -> None:
    """Copy 1,200 symlinks of this machine, with made ones for those that it lacks."""
    made = {f"share/made/link{number}": "../nowhere" for number in range(N_LINKS)}
    found: dict[str, str] = {}
    for directory, names, files in os.walk("/usr/share"):
        names.sort()
        links = {f"{directory}/{name}": _relative_link(directory, name) for name in names + files}
        here = {os.path.relpath(path, "/usr"): links[path] for path in sorted(links)}
        here = {path: target for path, target in here.items() if target}
        if len(here) >= MIN_LINKS:
            found.update(here)
    for path, target in [*found.items(), *made.items()][:N_LINKS]:
        (usr / path).parent.mkdir(parents=True, exist_ok=True)
        (usr / path).symlink_to(target)


def _relative_link(directory: str, name: str) -> str:
    """Return where a relative symlink leads; nothing if it is none."""
    path = f"{directory}/{name}"
    target = os.readlink(path) if os.path.islink(path) else "/"
    return "" if os.path.isabs(target) else target


def _make_same_usr(usr: Path) -> None:
    """Make 300 files and 20 symlinks that are the same on every machine."""
    for number in range(N_MADE):
        directory = usr / f"d{number % N_MADE_DIRS:02}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"file{number:03}").write_text(f"this is file {number}\n" * number)
    for number in range(N_MADE_LINKS):
        (usr / f"d{number % N_MADE_DIRS:02}/link{number}").symlink_to(f"file{number:03}")


def _make_small(small: Path) -> None:
    source = random.Random(5)
    for number in range(N_SMALL):
        directory = small / f"d{number % N_SMALL_DIRS:02}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"file{number:04}").write_bytes(source.randbytes(source.randint(0, 4000)))


def _spread(merged: Path, lowers: list[Path]) -> None:
    for lower in lowers:
        lower.mkdir()
    for path, status in walk(merged):
        if stat.S_ISDIR(status.st_mode):
            if crc32(path.encode()) % 10 == 0:
                _whiteout(f"{path}/gone", lowers)
            continue
        own = crc32(path.encode())
        common = crc32(os.path.dirname(path).encode())
        number = (common if own % 4 else own // 4) % N_LOWERS
        target = lowers[number] / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(merged / path, target, follow_symlinks=False)
        if own % 50 == 1 and number + 1 < N_LOWERS:
            older = lowers[number + 1] / path
            older.parent.mkdir(parents=True, exist_ok=True)
            older.write_text("an older version\n")


def _whiteout(path: str, lowers: list[Path]) -> None:
    """Put a file into the lowest layer and take it away in the topmost one."""
    for lower in (lowers[0], lowers[-1]):
        (lower / path).parent.mkdir(parents=True, exist_ok=True)
    (lowers[-1] / path).write_text("taken away\n")
    os.mknod(lowers[0] / path, stat.S_IFCHR, os.makedev(0, 0))


def _make_plain(merged: Path, lowers: list[Path]) -> None:
    """Make the layers without whiteouts beside `lowers`; their data is that of `merged`."""
    hidden = {
        path for lower in lowers for path, status in walk(lower) if stat.S_ISCHR(status.st_mode)
    }
    for lower in lowers:
        plain = lower.with_name(lower.name.replace("lower", "plain"))
        plain.mkdir()
        for path, status in walk(lower):
            if stat.S_ISDIR(status.st_mode):
                (plain / path).mkdir()
            elif path in hidden:
                continue
            elif os.lstat(merged / path).st_mtime_ns == status.st_mtime_ns:
                os.link(merged / path, plain / path, follow_symlinks=False)
            else:  # an older version
                shutil.copy2(lower / path, plain / path)


def _make_repository(source: Path, base: Path) -> None:
    checkout = base / "checkout"
    paths = [
        path
        for path, status in walk(source)
        if stat.S_ISREG(status.st_mode) and status.st_size <= MAX_REPOSITORY_FILE
    ]
    # from all over the tree, so that there are as many directories as in a large project
    for number in range(N_REPOSITORY):
        path = paths[number * len(paths) // N_REPOSITORY]
        (checkout / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source / path, checkout / path)
    for arguments in (
        ["init", "-q", "."],
        ["add", "-A", "-f"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "All of it"],
        ["clone", "-q", "--bare", ".", str(base / "repository.git")],
        ["--git-dir", str(base / "repository.git"), "gc", "-q"],
    ):
        subprocess.run(["git", *arguments], cwd=checkout, check=True, env=GIT_ENV)
    shutil.rmtree(checkout)


# Nothing of the user's configuration has a say in what is measured; a commit is always the same.
GIT_ENV = {
    **{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_SYSTEM": "/dev/null",
    "GIT_AUTHOR_DATE": "2024-01-01T00:00:00Z",
    "GIT_COMMITTER_DATE": "2024-01-01T00:00:00Z",
    "GIT_TERMINAL_PROMPT": "0",
    "LC_ALL": "C",
}
