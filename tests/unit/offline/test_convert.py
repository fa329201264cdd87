"""The forms of an upper, from one to another, and what one of them can not say."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from unionfuse.offline.convert import convert
from unionfuse.offline.errors import OfflineError
from unionfuse.offline.forms import FORMS

if TYPE_CHECKING:
    from pathlib import Path

TRUSTED, USER = "trusted.overlay.", "user.overlay."
CHARS = [pytest.param("overlayfs", marks=pytest.mark.root), "userxattr"]


@pytest.fixture
def upper(tmp_path: Path) -> Path:
    path = tmp_path / "upper"
    (path / "dir").mkdir(parents=True)
    return path


def to(form: str, upper: Path) -> list[str]:
    return convert(os.fsencode(upper), FORMS[form])


def is_whiteout(path: Path) -> bool:
    st = path.lstat()
    return stat.S_ISCHR(st.st_mode) and st.st_rdev == 0


def attributes(path: Path) -> dict[str, bytes]:
    return {
        name: os.getxattr(path, name, follow_symlinks=False)
        for name in os.listxattr(path, follow_symlinks=False)
    }


@pytest.mark.parametrize("form", CHARS)
def test_a_whiteout_file_becomes_a_device(form: str, upper: Path) -> None:
    (upper / "dir/.wh.gone").touch()
    os.utime(upper / "dir", ns=(1, 2))
    assert to(form, upper) == []
    assert os.listdir(upper / "dir") == ["gone"]
    assert is_whiteout(upper / "dir/gone")
    assert (upper / "dir").stat().st_mtime_ns == 2


@pytest.mark.parametrize("form", CHARS)
def test_a_whiteout_by_attribute_becomes_a_device(form: str, upper: Path) -> None:
    (upper / "dir/gone").touch()
    (upper / "dir/kept").touch()
    os.setxattr(upper / "dir/gone", USER + "whiteout", b"")
    os.setxattr(upper / "dir", USER + "opaque", b"x")
    assert to(form, upper) == []
    assert is_whiteout(upper / "dir/gone")
    assert not is_whiteout(upper / "dir/kept")
    assert attributes(upper / "dir") == {}


def test_whiteouts_become_files(upper: Path) -> None:
    os.mknod(upper / "dir/device", stat.S_IFCHR, 0)
    (upper / "dir/attribute").touch()
    os.setxattr(upper / "dir/attribute", USER + "whiteout", b"")
    os.setxattr(upper / "dir", USER + "whiteouts", b"")
    os.mknod(upper / "dir/!both", stat.S_IFCHR, 0)
    (upper / "dir/.wh.!both").touch()
    assert to("aufs", upper) == []
    assert sorted(os.listdir(upper / "dir")) == [".wh.!both", ".wh.attribute", ".wh.device"]
    assert attributes(upper / "dir") == {}


@pytest.mark.parametrize("mark", [USER + "opaque", "user.fuseoverlayfs.opaque", "file"])
def test_an_opaque_directory_says_so_in_one_form(mark: str, upper: Path) -> None:
    for form, attribute, files in [
        ("userxattr", {USER + "opaque": b"y"}, []),
        ("aufs", {}, [".wh..wh..opq"]),
    ]:
        if mark == "file":
            (upper / "dir/.wh..wh..opq").touch()
        else:
            os.setxattr(upper / "dir", mark, b"y")
        assert to(form, upper) == []
        assert (attributes(upper / "dir"), os.listdir(upper / "dir")) == (attribute, files)


@pytest.mark.root
def test_a_whiteout_beside_a_directory_becomes_its_opaque_mark(upper: Path) -> None:
    (upper / ".wh.dir").touch()
    assert to("overlayfs", upper) == []
    assert os.listdir(upper) == ["dir"]
    assert attributes(upper / "dir") == {TRUSTED + "opaque": b"y"}


@pytest.mark.root
def test_what_tells_where_an_object_came_from_goes_along(upper: Path) -> None:
    (upper / "link").symlink_to("nowhere")
    for path in (upper / "dir", upper / "link"):
        os.setxattr(path, TRUSTED + "origin", b"", follow_symlinks=False)
    os.setxattr(upper, TRUSTED + "impure", b"y")
    assert to("userxattr", upper) == []
    assert attributes(upper) == {USER + "impure": b"y"}
    assert attributes(upper / "dir") == {USER + "origin": b""}
    assert attributes(upper / "link") == {}  # symlinks have no user.*
    assert to("overlayfs", upper) == []
    assert attributes(upper / "dir") == {TRUSTED + "origin": b""}
    assert to("aufs", upper) == []
    assert attributes(upper) == attributes(upper / "dir") == {}


@pytest.mark.root
def test_entries_of_the_index_go_along(upper: Path, tmp_path: Path) -> None:
    index = tmp_path / "upper.work/index"
    index.mkdir(parents=True)
    (index / "00fb").touch()
    os.setxattr(index / "00fb", TRUSTED + "nlink", b"U+1")
    os.setxattr(upper / "dir", TRUSTED + "origin", b"")
    assert to("userxattr", upper) == []
    assert attributes(index / "00fb") == {USER + "nlink": b"U+1"}


@pytest.mark.root
def test_redirects_and_metacopies_of_users_attributes_become_those_of_root(upper: Path) -> None:
    os.setxattr(upper / "dir", USER + "redirect", b"old")
    (upper / "file").touch()
    os.setxattr(upper / "file", USER + "metacopy", b"")
    os.setxattr(upper / "file", USER + "redirect", b"/old-file")
    assert to("overlayfs", upper) == []
    assert attributes(upper / "dir") == {TRUSTED + "redirect": b"old"}
    assert attributes(upper / "file") == {
        TRUSTED + "metacopy": b"",
        TRUSTED + "redirect": b"/old-file",
    }


@pytest.mark.root
def test_what_a_user_may_have_set_himself_in_an_upper_of_root_is_not_obeyed(upper: Path) -> None:
    os.setxattr(upper, TRUSTED + "impure", b"y")
    os.setxattr(upper / "dir", USER + "redirect", b"/secret")
    assert to("overlayfs", upper) == [
        "/dir: user.overlay.redirect in an upper of trusted.overlay.*: a user's own?"
    ]
    os.removexattr(upper / "dir", USER + "redirect")
    os.setxattr(upper / "dir", USER + "origin", b"")
    assert to("overlayfs", upper) == []
    assert attributes(upper / "dir") == {}


@pytest.mark.root
def test_users_attributes_keep_the_names_that_users_see(upper: Path) -> None:
    os.setxattr(upper, TRUSTED + "impure", b"y")
    os.setxattr(upper / "dir", TRUSTED + "overlay.any", b"1")  # shown as trusted.overlay.any
    os.setxattr(upper / "dir", USER + "any", b"2")
    assert to("userxattr", upper) == []
    kept = {TRUSTED + "any": b"1", USER + "overlay.any": b"2"}
    assert attributes(upper / "dir") == kept
    assert to("overlayfs", upper) == []
    assert attributes(upper / "dir") == {TRUSTED + "overlay.any": b"1", USER + "any": b"2"}


@pytest.mark.root
def test_a_users_attribute_that_would_get_another_meaning_is_an_obstacle(upper: Path) -> None:
    name = TRUSTED + "overlay.opaque"
    os.setxattr(upper, TRUSTED + "impure", b"y")
    os.setxattr(upper / "dir", name, b"y")
    assert to("userxattr", upper) == [f"/dir: a user's attribute {name}, which can not be kept"]
    assert attributes(upper / "dir") == {name: b"y"}


@pytest.mark.root
def test_an_index_that_overlayfs_would_not_mount_is_an_obstacle(
    upper: Path, tmp_path: Path
) -> None:
    (tmp_path / "upper.work/index").mkdir(parents=True)
    (tmp_path / "upper.work/index/00fb").symlink_to("nowhere")
    assert to("userxattr", upper) == [
        "/index/00fb: an entry of the index that is a symlink: it can have no user.*"
    ]


@pytest.mark.parametrize("form", [*CHARS, "aufs"])
def test_a_whiteout_that_hides_nothing_in_an_opaque_directory_goes(form: str, upper: Path) -> None:
    (upper / "dir/.wh..wh..opq").touch()
    (upper / "dir/sub").mkdir()
    (upper / "dir/sub/.wh.gone").touch()
    assert to(form, upper) == []
    assert os.listdir(upper / "dir/sub") == []


@pytest.mark.root
def test_everything_that_aufs_can_not_say_is_told_and_nothing_is_changed(
    upper: Path, tmp_path: Path
) -> None:
    os.mknod(upper / "gone", stat.S_IFCHR, 0)
    os.mknod(upper / ("n" * 252), stat.S_IFCHR, 0)
    os.setxattr(upper / "dir", TRUSTED + "redirect", b"old")
    (upper / "file").touch()
    os.setxattr(upper / "file", TRUSTED + "metacopy", b"")
    (upper / "flags").touch()
    os.setxattr(upper / "flags", TRUSTED + "protattr", b"i")
    (tmp_path / "upper.work/index").mkdir(parents=True)
    (tmp_path / "upper.work/index/00fb").touch()
    assert sorted(to("aufs", upper)) == [
        "/dir: a redirect, which aufs can not say",
        "/file: a metacopy, which aufs can not say",
        "/flags: flags of chattr are kept in an attribute, and no file says so",
        "/index/00fb: an entry of the index in the workdir: hard links would part",
        f"/{'n' * 252}: its name is too long for a whiteout of the form .wh.NAME",
    ]
    assert is_whiteout(upper / "gone")


def test_a_whiteout_that_holds_data_is_an_obstacle(upper: Path) -> None:
    (upper / ".wh.dir").write_text("data")
    (upper / "dir/.wh.gone").touch()
    assert to("userxattr", upper) == [
        "/.wh.dir: a file that is taken for a whiteout: look at it first"
    ]
    assert os.listdir(upper / "dir") == [".wh.gone"]


@pytest.mark.root
def test_what_is_not_permitted_is_found_before_anything_is_changed(
    upper: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    (upper / "dir/.wh.gone").touch()
    monkeypatch.setattr(os, "mknod", refuse)
    assert to("overlayfs", upper) == ["/: char 0:0 can not be made here: Operation not permitted"]
    assert os.listdir(upper / "dir") == [".wh.gone"]


@pytest.mark.parametrize("form", ["userxattr", "aufs"])
def test_to_convert_again_changes_nothing(form: str, upper: Path) -> None:
    (upper / "dir/.wh.gone").touch()
    (upper / "dir/.wh..wh..opq").touch()
    assert to(form, upper) == []
    before = [(path, path.lstat().st_ctime_ns) for path in sorted(upper.rglob("*"))]
    assert to(form, upper) == []
    assert [(path, path.lstat().st_ctime_ns) for path, _ in before if path.name == "gone"] == [
        one for one in before if one[0].name == "gone"
    ]
    assert sorted(upper.rglob("*")) == [path for path, _ in before]


def test_a_workdir_that_is_given_must_be_there(upper: Path, tmp_path: Path) -> None:
    with pytest.raises(OfflineError, match="no such directory"):
        convert(os.fsencode(upper), FORMS["aufs"], os.fsencode(tmp_path / "none"))
