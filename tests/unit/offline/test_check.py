"""Each kind of finding: it is found, mended where that is no guess, and then gone."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.support.core import CHAR_TRUSTED, CHAR_USER
from tests.unit.conftest import Stand
from unionfuse.layer.handle import FileHandle
from unionfuse.offline.check import WITHOUT_LOWERS, Check, Request
from unionfuse.offline.findings import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.core import Driver

IS_ROOT = os.geteuid() == 0
P = "trusted.overlay." if IS_ROOT else "user.overlay."
OTHER = "user.overlay."
GONE = FileHandle(1, b"\xff" * 8, bytes(16)).pack()  # of an inode that no filesystem has


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    """Lowers with a file and a directory in each, and an upper that something was done in."""
    stand = Stand(tmp_path, CHAR_TRUSTED if IS_ROOT else CHAR_USER)
    for lower in stand.lowers:
        (lower / "dir/sub").mkdir(parents=True)
        (lower / "dir/file").write_text(f"of {lower.name}")
        (lower / "dir/sub/file").write_text(f"below, of {lower.name}")
    os.link(stand.bottom / "dir/file", stand.bottom / "second")
    (stand.bottom / "other").mkdir()
    stand.d.mkdir(b"new")
    stand.d.create(b"new/file", b"new")
    stand.close()
    yield stand
    stand.close()


def run(stand: Stand, *, lowers: bool = True, all_: bool = False, repairs: bool = False) -> Check:
    paths = [os.fsencode(lower) for lower in stand.lowers] if lowers else []
    work = os.fsencode(stand.work)
    return Check(Request(os.fsencode(stand.upper), paths, work, all_, repairs))


def found(stand: Stand, *, lowers: bool = True, all_: bool = False) -> list[str]:
    outcomes = run(stand, lowers=lowers, all_=all_).outcomes()
    return [f"{one.finding.kind} {os.fsdecode(one.finding.path)}" for one in outcomes]


def repair(stand: Stand) -> list[bool]:
    return [outcome.is_mended for outcome in run(stand, all_=True, repairs=True).outcomes()]


def shown(d: Driver, path: bytes = b"") -> dict[bytes, tuple[object, ...]]:
    """Return what the union shows, with the times of directories."""
    st = d.stat(path).st
    fmt = stat.S_IFMT(st.st_mode)
    data = d.read(path) if fmt == stat.S_IFREG else None
    tree: dict[bytes, tuple[object, ...]] = {path: (st.st_mode, data, st.st_mtime_ns)}
    for name in d.listdir(path) if fmt == stat.S_IFDIR else []:
        tree |= shown(d, os.path.join(path, name))
    return tree


def char(path: Path) -> None:
    os.mknod(path, stat.S_IFCHR, 0)


def directory(path: Path, **marks: bytes) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for mark, value in marks.items():
        os.setxattr(path, P + mark, value)
    return path


def file(path: Path, data: str = "", **marks: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(data)
    for mark, value in marks.items():
        os.setxattr(path, P + mark, value)
    return path


def metacopy(path: Path, size: int, value: bytes = b"", **marks: bytes) -> Path:
    os.truncate(file(path, metacopy=value, **marks), size)
    return path


def index_entry(stand: Stand, *, links: int = 0, name: str = "", **marks: bytes) -> None:
    """Make an entry for the lower file `second`, with so many names in the upper."""
    stand.d.chmod(b"second", 0o600)
    stand.close()
    [entry] = (stand.work / "index").iterdir()
    os.unlink(stand.upper / "second")
    for number in range(links):
        os.link(entry, stand.upper / f"link{number}")
    for mark, value in marks.items():
        os.setxattr(entry, P + mark, value)
    if name:
        entry.rename(entry.with_name(name))


@dataclass(frozen=True)
class Case:
    """Something that is wrong.

    Attributes:
        make: makes it.
        found: the kind and the path of the finding.
        is_mended: whether a repair mends it.
        needs_lowers: whether it is found with the lowers alone.
        is_superfluous: whether it is told only when that is asked for.
    """

    make: Callable[[Stand], object]
    found: str
    is_mended: bool = False
    needs_lowers: bool = False
    is_superfluous: bool = False


def pure(stand: Stand) -> Path:
    return directory(stand.upper / "dir", opaque=b"y")


CASES = {
    "a temporary": Case(lambda s: file(s.work / "work/#1"), "leftover work/#1", True),
    "a temporary directory": Case(
        lambda s: file(s.work / "work/#2/sub/file"), "leftover work/#2", True
    ),
    "an index entry that is not finished": Case(
        lambda s: file(s.work / "index/#3"), "leftover index/#3", True
    ),
    "a volatile mount": Case(
        lambda s: directory(s.work / "work/incompat/volatile"),
        "incompatible-mark work/incompat/volatile",
    ),
    "a whiteout": Case(
        lambda s: char(s.upper / "nothing"), "whiteout-over-nothing nothing", True, True
    ),
    "a whiteout file": Case(
        lambda s: file(s.upper / "dir/.wh.nothing"),
        "whiteout-over-nothing dir/.wh.nothing", True, True,
    ),
    "a whiteout by attribute": Case(
        lambda s: (
            directory(s.upper / "dir", opaque=b"x"), file(s.upper / "dir/nothing", whiteout=b"")
        ),
        "whiteout-over-nothing dir/nothing", True, True,
    ),
    "a whiteout of what a lower hides itself": Case(
        lambda s: (file(s.bottom / "x"), char(s.top / "x"), char(s.upper / "x")),
        "whiteout-over-nothing x", True, True,
    ),
    "a whiteout in an opaque directory": Case(
        lambda s: char(pure(s) / "file"), "whiteout-in-opaque dir/file", True
    ),
    "a whiteout below an opaque directory": Case(
        lambda s: (pure(s), char(directory(s.upper / "dir/sub") / "file")),
        "whiteout-in-opaque dir/sub/file", True,
    ),
    "a whiteout beside a file": Case(
        lambda s: (file(s.upper / "dir/file"), file(s.upper / "dir/.wh.file")),
        "whiteout-beside-name dir/.wh.file", True,
    ),
    "a whiteout beside a directory": Case(
        lambda s: (file(s.upper / "dir/made"), file(s.upper / ".wh.dir")),
        "whiteout-beside-name .wh.dir", True,
    ),
    "a whiteout beside an opaque directory": Case(
        lambda s: (pure(s), file(s.upper / ".wh.dir")), "whiteout-beside-name .wh.dir", True
    ),
    "a whiteout beside another one": Case(
        lambda s: (char(s.upper / "dir"), file(s.upper / ".wh.dir")),
        "whiteout-beside-name .wh.dir", True,
    ),
    "a mark of a whiteout where none are looked for": Case(
        lambda s: file(s.upper / "dir/file", whiteout=b""), "whiteout-unmarked dir/file"
    ),
    "a file with data in the place of a whiteout": Case(
        lambda s: file(s.upper / ".wh.dir", "data"), "reserved-name .wh.dir"
    ),
    "a directory in the place of a whiteout": Case(
        lambda s: file(s.upper / ".wh.dir/file"), "reserved-name .wh.dir"
    ),
    "a whiteout of no name": Case(lambda s: file(s.upper / ".wh."), "reserved-name .wh."),
    "opaque in opaque": Case(
        lambda s: directory(pure(s) / "sub", opaque=b"y"),
        "opaque-in-opaque dir/sub", True, is_superfluous=True,
    ),
    "opaque by a file in opaque": Case(
        lambda s: file(pure(s) / "sub/.wh..wh..opq"),
        "opaque-in-opaque dir/sub", True, is_superfluous=True,
    ),
    "opaque over nothing": Case(
        lambda s: directory(s.upper / "made", opaque=b"y"),
        "opaque-over-nothing made", True, True, True,
    ),
    "a redirect with a dot": Case(
        lambda s: directory(s.upper / "made", redirect=b"/a/../dir"), "redirect-malformed made"
    ),
    "a redirect with an empty part": Case(
        lambda s: directory(s.upper / "made", redirect=b"/dir/"), "redirect-malformed made"
    ),
    "a redirect of several parts that is no path": Case(
        lambda s: directory(s.upper / "made", redirect=b"a/b"), "redirect-malformed made"
    ),
    "a redirect to an impossible name": Case(
        lambda s: directory(s.upper / "made", redirect=b"x" * 256), "redirect-malformed made"
    ),
    "a redirect to nowhere": Case(
        lambda s: directory(s.upper / "made", redirect=b"/none"),
        "redirect-nowhere made", needs_lowers=True,
    ),
    "a redirect to a file": Case(
        lambda s: directory(s.upper / "made", redirect=b"/dir/file"),
        "redirect-nowhere made", needs_lowers=True,
    ),
    "two redirects to one directory": Case(
        lambda s: (
            directory(s.upper / "one", redirect=b"/other"),
            directory(s.upper / "two", redirect=b"other"),
        ),
        "redirect-duplicate two", needs_lowers=True,
    ),
    "a redirect to a directory that is merged at its place": Case(
        lambda s: (directory(s.upper / "dir"), directory(s.upper / "two", redirect=b"dir")),
        "redirect-duplicate two", needs_lowers=True,
    ),
    "a metacopy without data": Case(
        lambda s: metacopy(s.upper / "lost", 9), "metacopy-without-data lost", needs_lowers=True
    ),
    "a metacopy in an opaque directory": Case(
        lambda s: metacopy(pure(s) / "file", 9), "metacopy-without-data dir/file"
    ),
    "a metacopy of another size": Case(
        lambda s: metacopy(s.upper / "dir/file", 3), "metacopy-size dir/file", needs_lowers=True
    ),
    "a metacopy whose mark says nothing": Case(
        lambda s: metacopy(s.upper / "dir/file", 9, b"\1\2"), "metacopy-malformed dir/file"
    ),
    "a metacopy with a broken redirect": Case(
        lambda s: metacopy(s.upper / "moved", 9, redirect=b"../file"), "redirect-malformed moved"
    ),
    "an origin that is no handle": Case(
        lambda s: (file(pure(s) / "x", origin=b"x"), directory(s.upper / "dir", impure=b"y")),
        "origin-malformed dir/x", True,
    ),
    "a path as an origin that no lower has": Case(
        lambda s: os.setxattr(file(s.upper / "x"), "user.fuseoverlayfs.origin", b"none\0"),
        "origin-stale x", needs_lowers=True,
    ),
    "a directory that is not marked impure": Case(
        lambda s: (s.d.write(b"dir/file", b"new"), s.close(),
                   os.removexattr(s.upper / "dir", P + "impure")),
        "impure-missing dir", True,
    ),
    "an index entry of a name that is no handle": Case(
        lambda s: file(s.work / "index/abc"), "index-malformed index/abc"
    ),
    "an index entry of another name": Case(
        lambda s: index_entry(s, links=1, name=GONE.hex()), f"index-mismatch index/{GONE.hex()}"
    ),
    "a directory in the index that is for none": Case(
        lambda s: directory(s.work / "index" / GONE.hex()), f"index-malformed index/{GONE.hex()}"
    ),
}  # fmt: skip


@pytest.fixture(params=CASES.values(), ids=list(CASES))
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


def test_what_nothing_is_wrong_with_is_clean(stand: Stand) -> None:
    stand.d.chmod(b"dir/file", 0o600)
    stand.d.chmod(b"second", 0o600)
    stand.d.unlink(b"dir/sub/file")
    stand.d.rename(b"other", b"moved")
    stand.close()
    assert found(stand) == found(stand, all_=True) == found(stand, lowers=False) == []


def test_each_kind_is_found(case: Case, stand: Stand) -> None:
    case.make(stand)
    assert found(stand, all_=True) == [case.found]


def test_each_kind_is_found_without_lowers_if_they_are_not_needed(case: Case, stand: Stand) -> None:
    case.make(stand)
    assert found(stand, lowers=False, all_=True) == ([] if case.needs_lowers else [case.found])


def test_what_overlayfs_leaves_itself_is_told_only_when_it_is_asked_for(
    case: Case, stand: Stand
) -> None:
    case.make(stand)
    assert found(stand) == ([] if case.is_superfluous else [case.found])


def everything(stand: Stand) -> dict[str, tuple[object, ...]]:
    """Return all that is on disk, attributes too."""
    paths = [path for root in (stand.upper, stand.work) for path in (root, *root.rglob("*"))]
    return {
        str(path): (
            path.lstat().st_mode,
            path.lstat().st_ino,
            path.lstat().st_mtime_ns,
            {name: os.getxattr(path, name) for name in os.listxattr(path)},
        )
        for path in paths
    }


def test_a_repair_mends_it_and_shows_the_same_or_touches_nothing(case: Case, stand: Stand) -> None:
    case.make(stand)
    stand.close()
    if not case.is_mended:
        before = everything(stand)
        assert repair(stand) == [False]
        assert everything(stand) == before
        assert found(stand, all_=True) == [case.found]
        return
    if case.found.startswith("leftover"):  # a mount would remove it itself
        assert repair(stand) == [True]
        assert found(stand, all_=True) == []
        return
    tree = shown(stand.d)
    stand.close()
    assert repair(stand) == [True]
    assert found(stand, all_=True) == []
    assert shown(stand.d) == tree


def test_a_metacopy_in_a_directory_that_is_not_marked_gets_its_data_back(stand: Stand) -> None:
    stand.d.chmod(b"dir/file", 0o600)
    stand.close()
    os.removexattr(stand.upper / "dir", P + "impure")
    assert repair(stand) == [True]
    assert stand.d.read(b"dir/file") == b"of lower1"


@pytest.mark.root
def test_an_origin_that_is_in_no_lower_any_more_is_found(stand: Stand) -> None:
    file(stand.upper / "dir/file", origin=GONE)
    directory(stand.upper / "dir", impure=b"y")
    assert found(stand) == ["origin-stale dir/file"]


@pytest.mark.parametrize(
    ("links", "nlink", "wanted"),
    [
        (0, b"U-1", "index-orphan"),
        (0, b"U+1", None),
        (1, b"U-1", None),
        (2, b"U-2", "index-nlink"),
        (0, b"U-2", "index-nlink"),
        (1, b"many", "index-nlink"),
        (1, b"L+0", None),
    ],
)
def test_the_count_of_links_of_an_index_entry_is_one_that_can_be(
    links: int, nlink: bytes, wanted: str | None, stand: Stand
) -> None:
    index_entry(stand, links=links, nlink=nlink)
    assert [line.split()[0] for line in found(stand)] == ([wanted] if wanted else [])


def test_an_index_entry_without_names_is_removed(stand: Stand) -> None:
    index_entry(stand, nlink=b"U-1")
    assert repair(stand) == [True]
    assert os.listdir(stand.work / "index") == []


def test_an_index_entry_without_a_count_is_found(stand: Stand) -> None:
    index_entry(stand, links=1)
    [entry] = (stand.work / "index").iterdir()
    os.removexattr(entry, P + "nlink")
    assert found(stand) == [f"index-nlink index/{entry.name}"]


@pytest.mark.root
def test_attributes_of_both_namespaces_in_one_upper_are_found(stand: Stand) -> None:
    directory(stand.upper / "dir", impure=b"y")
    os.setxattr(stand.upper / "new", OTHER + "origin", b"")
    assert found(stand) == ["mixed-namespaces new"]
    assert repair(stand) == [False]


@pytest.mark.root
def test_an_upper_of_user_attributes_alone_is_checked_as_such(stand: Stand) -> None:
    os.setxattr(directory(stand.upper / "made"), OTHER + "redirect", b"/none")
    assert found(stand) == ["redirect-nowhere made"]


def test_attributes_that_users_of_a_nested_overlay_set_are_no_markers(stand: Stand) -> None:
    os.setxattr(stand.upper / "new", P + "overlay.redirect", b"..")
    assert found(stand) == []


def test_what_aufs_keeps_for_itself_is_no_finding(stand: Stand) -> None:
    file(stand.upper / ".wh..wh.aufs")
    directory(stand.upper / ".wh..wh.plnk")
    assert found(stand) == []


def test_the_device_that_fuse_overlayfs_makes_in_opaque_directories_is_no_finding(
    stand: Stand,
) -> None:
    char(pure(stand) / ".wh..opq")
    assert found(stand) == []


def test_the_whiteout_that_overlayfs_keeps_in_its_workdir_is_no_leftover(stand: Stand) -> None:
    char(stand.work / "work/#4")
    char(stand.work / "index/#5")
    assert found(stand) == []


def test_it_is_said_what_was_not_checked(stand: Stand, tmp_path: Path) -> None:
    check = run(stand, lowers=False)
    list(check.outcomes())
    assert check.notes == [WITHOUT_LOWERS]
    stand.work.rename(tmp_path / "elsewhere")
    check = Check(Request(os.fsencode(stand.upper), [os.fsencode(stand.top)]))
    list(check.outcomes())
    assert check.notes == [f"no workdir {stand.work}: give --workdir to have it checked"]


def test_all_kinds_have_a_case_here() -> None:
    with open(__file__) as source:
        text = source.read()
    assert [kind for kind in Kind if f"{kind} " not in text and f'"{kind}"' not in text] == []
