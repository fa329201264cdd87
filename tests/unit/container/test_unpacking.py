"""Members of a tar are written below a directory, with their times."""

import io
import os
import tarfile
from pathlib import Path

import pytest

from unionfuse.container import copy, unpacking

pytestmark = pytest.mark.timeout(20)

WHEN = 1_000_000_000


def packed(*members: tuple[str, bytes, str]) -> io.BytesIO:
    """Return a tar of members: name, type, target."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, kind, target in members:
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.mtime = kind, target, WHEN
            tar.addfile(member)
    out.seek(0)
    return out


def receive(tmp_path: Path, tar: io.BytesIO) -> Path:
    """Take a tar as `cp` does, to a directory that is made."""
    path = tmp_path / "tar"
    path.write_bytes(tar.getvalue())
    fd = os.open(path, os.O_RDONLY)
    try:
        copy.receive(fd, copy.Copying("/source", str(tmp_path / "out")))
    finally:
        os.close(fd)
    return tmp_path / "out"


def time_of(path: Path) -> float:
    return path.lstat().st_mtime


def test_a_symlink_gets_its_time_and_where_it_leads_none(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.touch()
    before = time_of(outside)
    out = receive(
        tmp_path,
        packed(
            ("copied", tarfile.DIRTYPE, ""),
            ("copied/away", tarfile.SYMTYPE, str(outside)),
            ("copied/dangling", tarfile.SYMTYPE, "nothing"),
            ("copied/file", tarfile.REGTYPE, ""),
        ),
    )
    assert {each.name: time_of(each) for each in out.iterdir()} == dict.fromkeys(
        ("away", "dangling", "file"), WHEN
    )
    assert time_of(outside) == before


def extract(tmp_path: Path, tar: io.BytesIO) -> Path:
    out = tmp_path / "out"
    out.mkdir()
    with tarfile.open(fileobj=tar) as opened:
        for member in opened:
            unpacking.extract(opened, member, str(out))
    return out


def test_absolute_names_are_below_the_directory(tmp_path: Path) -> None:
    top = str(tmp_path / "file")  # which would be written else
    linked = str(tmp_path / "linked")
    out = extract(tmp_path, packed((top, tarfile.REGTYPE, ""), (linked, tarfile.LNKTYPE, top)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
    assert os.path.samefile(f"{out}{top}", f"{out}{linked}")


def test_a_link_to_what_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(tarfile.TarError, match="a is a link to nothing, which is not there"):
        extract(tmp_path, packed(("a", tarfile.LNKTYPE, "nothing")))
