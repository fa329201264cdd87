"""A member of a tar is written with its time, a symlink too."""

import io
import os
import tarfile
from pathlib import Path

import pytest

from unionfuse.container import copy

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
