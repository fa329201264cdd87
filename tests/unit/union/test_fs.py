"""What holds for a union as a whole."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from unionfuse.union.fs import ROOT_NODEID, UnionFs

if TYPE_CHECKING:
    from pathlib import Path


def names(fs: UnionFs) -> set[bytes]:
    return {dirent.name for dirent in fs.readdir(ROOT_NODEID, 0)}


@pytest.fixture
def lowers(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / name for name in ("top", "middle", "bottom")]
    for path in paths:
        path.mkdir()
        (path / f"of-{path.name}").touch()
    return paths


@pytest.mark.parametrize("mark", ["file", "attribute"])
def test_an_opaque_root_hides_the_layers_below_it(lowers: list[Path], mark: str) -> None:
    if mark == "file":
        (lowers[1] / ".wh..wh..opq").touch()
    else:
        os.setxattr(lowers[1], "user.overlay.opaque", b"y")
    fs = UnionFs.from_paths([os.fsencode(path) for path in lowers])
    assert names(fs) == {b"of-top", b"of-middle"}
    fs.close()


def test_an_opaque_root_of_the_upper_hides_every_lower(lowers: list[Path], tmp_path: Path) -> None:
    upper = tmp_path / "upper"
    upper.mkdir()
    (upper / ".wh..wh..opq").touch()
    paths = [os.fsencode(path) for path in lowers]
    fs = UnionFs.from_paths(paths, os.fsencode(upper), os.fsencode(tmp_path / "work"))
    assert names(fs) == set()
    fs.close()
