"""Fixtures of the unit tests: layers on disk, and unions of them that nobody mounts."""

from __future__ import annotations

import contextlib
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.core import CHAR_TRUSTED, CHAR_USER, WH_FILES, Driver, use_format
from unionfuse.layer.stack import LayerStack
from unionfuse.union.fs import UnionFs
from unionfuse.union.state import Options

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from unionfuse.layer.upper import UpperFormat

# Plain users can not write trusted.*, so that form is for root alone.
FORMATS = [
    pytest.param(CHAR_TRUSTED, id="char-trusted", marks=pytest.mark.root),
    pytest.param(CHAR_USER, id="char-user"),
    pytest.param(WH_FILES, id="wh-files"),
]


class Stand:
    """Layers on disk, and the union of them: `lowers[0]` is the topmost.

    Attributes:
        fmt: the forms of markers that the union writes; None for what it finds out itself.
        options: of the union; nothing is written to disk for safety's sake.
    """

    def __init__(self, base: Path, fmt: UpperFormat | None, n_lowers: int = 2) -> None:
        self.fmt = fmt
        self.options = Options(sync=False, metacopy=True, redirect_dir="on")
        self.lowers = [base / f"lower{number}" for number in range(1, n_lowers + 1)]
        self.upper, self.work = base / "upper", base / "upper.work"
        for path in (*self.lowers, self.upper):
            path.mkdir()
        self._driver: Driver | None = None

    @property
    def top(self) -> Path:
        return self.lowers[0]

    @property
    def bottom(self) -> Path:
        return self.lowers[-1]

    @property
    def d(self) -> Driver:
        """The union, opened when it is first asked for."""
        if self._driver is None:
            paths = [os.fsencode(path) for path in (*self.lowers, self.upper, self.work)]
            *lowers, upper, work = paths
            fs = UnionFs.from_paths(lowers, upper, work, self.options)
            if self.fmt is not None:
                use_format(fs, self.fmt)
            self._driver = Driver(fs)
        return self._driver

    def close(self) -> None:
        if self._driver is not None:
            self._driver.close()
            self._driver = None

    def remount(self) -> Driver:
        """Close the union and open it again, as another mount would."""
        self.close()
        return self.d

    def temporaries(self) -> list[str]:
        """Return what lies in WORKDIR/work, of which nothing should remain."""
        return os.listdir(self.work / "work")


@pytest.fixture(autouse=True)
def _no_umask() -> Iterator[None]:
    before = os.umask(0)  # the daemon has none either: modes are the callers' to choose
    yield
    os.umask(before)


@pytest.fixture(params=FORMATS)
def union(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stand]:
    """Two lowers and an upper, in each of the forms in which an upper is written."""
    stand = Stand(tmp_path, request.param)
    with contextlib.closing(stand):
        yield stand


@pytest.fixture(params=FORMATS[:2])
def recording(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stand]:
    """As `union`, in the forms that record where a copied-up file came from."""
    stand = Stand(tmp_path, request.param)
    with contextlib.closing(stand):
        yield stand


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[Stand]:
    """Two lowers and an upper, in the form that is the best one here."""
    stand = Stand(tmp_path, None)
    with contextlib.closing(stand):
        yield stand


@pytest.fixture
def small_upper(tmp_path: Path) -> Iterator[Stand]:
    """A union whose upper and workdir have 1 MiB of room (root only)."""
    room = tmp_path / "room"
    room.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(room)]
    subprocess.run(command, check=True, timeout=30)
    try:
        stand = Stand(tmp_path, None)
        stand.upper.rmdir()
        stand.upper, stand.work = room / "upper", room / "work"
        stand.upper.mkdir()
        with contextlib.closing(stand):
            yield stand
    finally:
        subprocess.run(["umount", "-l", str(room)], check=True, timeout=30)


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[LayerStack]:
    """An opened stack of one upper, `upper`, and one lower, `lower`, below tmp_path."""
    for name in ("upper", "lower"):
        (tmp_path / name).mkdir()
    upper, lower = os.fsencode(tmp_path / "upper"), os.fsencode(tmp_path / "lower")
    with contextlib.closing(LayerStack.open(upper, [lower], 16)) as opened:
        yield opened
