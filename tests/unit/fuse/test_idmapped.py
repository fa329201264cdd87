"""Lowers on a mount that maps ids by itself."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from unionfuse.fuse import idmapped
from unionfuse.fuse.mountinfo import Mount

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Mount]:
    """Mounts of one filesystem on /, and with ids mapped, of tmp_path/graph on tmp_path/mapped."""
    (tmp_path / "graph" / "layer").mkdir(parents=True)
    (tmp_path / "mapped").symlink_to("graph")  # shows the same files
    base = os.fsencode(tmp_path)
    mounts = [
        Mount(b"8:1", b"/", b"/", (b"rw",), b"ext4"),
        Mount(b"8:1", base + b"/graph", base + b"/mapped", (b"rw", b"idmapped"), b"ext4"),
        Mount(b"0:5", b"/", b"/proc", (b"rw",), b"proc"),
    ]
    monkeypatch.setattr(idmapped, "mounts", lambda: mounts)
    return mounts


def at(tmp_path: Path, name: str) -> bytes:
    return os.fsencode(tmp_path / name)


@pytest.mark.parametrize("name", ["", "/layer"])
def test_they_are_taken_from_where_they_are_not_mapped(
    tmp_path: Path, listed: list[Mount], name: str
) -> None:
    assert idmapped.original(at(tmp_path, f"mapped{name}")) == at(tmp_path, f"graph{name}")


def test_others_stay_where_they_are(tmp_path: Path, listed: list[Mount]) -> None:
    for path in (at(tmp_path, "graph/layer"), at(tmp_path, "mapped2"), b"/"):
        assert idmapped.original(path) == path


def test_one_that_is_nowhere_else_stays_where_it_is(tmp_path: Path, listed: list[Mount]) -> None:
    listed[0] = listed[0]._replace(device=b"8:2")
    path = at(tmp_path, "mapped/layer")
    assert idmapped.original(path) == path


def test_one_that_another_mount_hides_stays_where_it_is(
    tmp_path: Path, listed: list[Mount]
) -> None:
    (tmp_path / "other").mkdir()
    root = os.fsencode(tmp_path / "graph")
    listed[0] = Mount(b"8:1", root, at(tmp_path, "other"), (b"rw",), b"ext4")
    path = at(tmp_path, "mapped/layer")
    assert idmapped.original(path) == path


def test_the_mount_on_top_of_another_counts(tmp_path: Path, listed: list[Mount]) -> None:
    listed.append(listed[1]._replace(options=(b"rw",)))
    path = at(tmp_path, "mapped/layer")
    assert idmapped.original(path) == path
