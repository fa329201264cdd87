"""Fixtures of the tests that mount, and the sessions over which each of them runs.

A test marked `fuse` runs over every session, one that is marked `data` also where the kernel
gathers writes; marked `once` too, only over the one that unionfuse picks itself; marked
`sessions(...)` too, over those that it names. UNIONFUSE_TEST_SESSION and UNIONFUSE_TEST_IO choose
one for all.
"""

import itertools
import os
import shutil
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.mounts import Layers
from tests.support.sessions import ALL_SESSIONS, SESSIONS, Session, chosen_session


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "once: over no more than one session")
    config.addinivalue_line("markers", "data: about data, so over the write-back cache too")
    config.addinivalue_line("markers", "sessions(*sessions): over these sessions alone")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    definition = metafunc.definition
    others = os.environ.get("UNIONFUSE_TEST_PROGRAM", "unionfuse") != "unionfuse"
    once = definition.get_closest_marker("once")
    if once or others or not definition.get_closest_marker("fuse"):
        return
    marker = definition.get_closest_marker("sessions")
    usual = ALL_SESSIONS if definition.get_closest_marker("data") else SESSIONS
    able = marker.args if marker else usual
    chosen = chosen_session()
    params = []
    for session in [chosen] if chosen else list(able):
        cause = "" if os.environ.get("UNIONFUSE_TEST_NO_SKIPS") else session.lacking()
        if marker and session not in able:
            cause = f"is about {', '.join(session.name for session in able)}"
        marks = [pytest.mark.skip(reason=cause)] if cause else []
        params.append(pytest.param(session, id=session.name, marks=marks))
    metafunc.parametrize("session", params, indirect=True)


@pytest.fixture(autouse=True)
def session(request: pytest.FixtureRequest) -> Iterator[Session | None]:
    """Let every mount of the test be served by one session; None: by the one that is picked."""
    session: Session | None = getattr(request, "param", None) or chosen_session()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (session.environment if session else {}).items():
            patch.setenv(name, value)
        yield session


@pytest.fixture
def layers(tmp_path: Path) -> Layers:
    """Make the directories of a union with two empty lowers."""
    return Layers.create(tmp_path / "union", 2)


@pytest.fixture(scope="session")
def real_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a tree of some thousand real files: the standard library of this Python.

    To what a library has (sources, packages, shared objects) it adds what it lacks: hard links,
    symlinks that dangle, point up and point to a directory, a hole, empty files and directories,
    and modes out of the ordinary.
    """
    tree = tmp_path_factory.mktemp("real") / "tree"
    library = Path(sysconfig.get_path("stdlib"))
    unwanted = shutil.ignore_patterns("site-packages", "dist-packages", "config-*", "__pycache__")
    shutil.copytree(library, tree, symlinks=True, ignore=unwanted)

    special = tree / "special"
    (special / "empty").mkdir(parents=True)
    (special / "nothing").touch()
    (special / "original").write_text("one file, three names\n")
    os.link(special / "original", special / "second")
    os.link(special / "original", special / "empty" / "third")
    (special / "dangling").symlink_to("no/such/file")
    (special / "upwards").symlink_to("../os.py")
    (special / "directory").symlink_to("empty")
    with open(special / "sparse", "wb") as sparse:
        sparse.write(b"head")
        sparse.seek(64 << 20)
        sparse.write(b"tail")
    for mode in (0o400, 0o555, 0o700, 0o2755, 0o4711):
        file = special / f"mode-{mode:o}"
        file.write_text(f"{mode:o}\n")
        file.chmod(mode)
    (special / "sticky").mkdir()
    (special / "sticky").chmod(0o1777)
    give_old_times(tree)
    return tree


def give_old_times(tree: Path) -> None:
    """Give every name below `tree` its own time of the last century.

    A program that keeps times is told by it from one that makes files anew.
    """
    moments = itertools.count(100_000_000 * 10**9 + 123_456_789, 3_600 * 10**9)
    for directory, directories, files in os.walk(tree, topdown=False):
        for name in sorted(files) + sorted(directories):
            moment = next(moments)
            os.utime(os.path.join(directory, name), ns=(moment, moment), follow_symlinks=False)
    os.utime(tree, ns=(next(moments),) * 2)
