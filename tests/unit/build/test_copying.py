"""What ADD takes is put into a tree."""

import os
import tarfile
from pathlib import Path

import pytest

from unionfuse.build import copying, sources
from unionfuse.build.copying import Copying
from unionfuse.build.ignore import Ignore
from unionfuse.build.sources import Tree

pytestmark = [pytest.mark.root, pytest.mark.timeout(20)]

WHEN = 1_000_000_000


def add(tmp_path: Path, *members: tarfile.TarInfo) -> Path:
    """Make a tree at whose /x a tar of members is unpacked, and return it."""
    context, root = tmp_path / "context", tmp_path / "root"
    context.mkdir()
    root.mkdir()
    with tarfile.open(context / "a.tar", "w") as tar:
        for member in members:
            tar.addfile(member)
    fd = os.open(context, os.O_RDONLY | os.O_DIRECTORY)
    found = sources.find(Tree(fd, Ignore("")), ["a.tar"], 1)
    try:
        copying.copy(str(root), Copying(found, "/x/", unpacks=True), 1)
    finally:
        sources.close(found)
        os.close(fd)
    return root


def symlink(name: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.mtime = tarfile.SYMTYPE, "/etc/passwd", WHEN
    return member


def test_a_symlink_of_a_tar_keeps_its_time(tmp_path: Path) -> None:
    root = add(tmp_path, symlink("link"))
    assert (root / "x/link").lstat().st_mtime == WHEN
