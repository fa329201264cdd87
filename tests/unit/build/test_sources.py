from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import pytest

from unionfuse.build import sources
from unionfuse.build.errors import BuildError
from unionfuse.build.ignore import Ignore
from unionfuse.build.sources import Tree, content_digest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from unionfuse.build.sources import Source


@pytest.fixture
def context(tmp_path: Path) -> Path:
    path = tmp_path / "context"
    (path / "dir" / "sub").mkdir(parents=True)
    (path / "a.txt").write_text("a")
    (path / "b.txt").write_text("b")
    (path / "dir" / "file").write_text("file")
    (path / "dir" / "sub" / "x.log").write_text("log")
    (path / "dir" / "link").symlink_to("file")
    (tmp_path / "secret").write_text("secret")
    return path


@contextlib.contextmanager
def found(context: Path, *patterns: str, ignore: str = "") -> Iterator[list[Source]]:
    fd = os.open(context, os.O_RDONLY | os.O_DIRECTORY)
    try:
        each = sources.find(Tree(fd, Ignore(ignore)), list(patterns), 3)
        try:
            yield each
        finally:
            sources.close(each)
    finally:
        os.close(fd)


def digest(context: Path, *patterns: str, ignore: str = "") -> str:
    with found(context, *patterns, ignore=ignore) as each:
        return content_digest(each)


class TestFind:
    @pytest.mark.parametrize(
        ("pattern", "paths"),
        [
            ("a.txt", ["a.txt"]),
            ("./dir/../a.txt", ["a.txt"]),
            ("/a.txt", ["a.txt"]),
            ("*.txt", ["a.txt", "b.txt"]),
            ("[b-z]*", ["b.txt", "dir"]),
            ("d?r/*", ["dir/file", "dir/link", "dir/sub"]),
            ("*/sub/*.log", ["dir/sub/x.log"]),
            (".", [""]),
        ],
    )
    def test_patterns_are_those_of_go(self, context: Path, pattern: str, paths: list[str]) -> None:
        with found(context, pattern) as each:
            assert [source.path for source in each] == paths

    def test_a_symlink_that_is_named_is_followed(self, context: Path) -> None:
        with found(context, "dir/link") as (source,):
            assert os.read(source.fd, 9) == b"file"
            assert source.name == "link"

    def test_no_name_and_no_symlink_leads_out(self, context: Path) -> None:
        (context / "out").symlink_to("../secret")
        (context / "up").symlink_to("..")
        for name in ("../secret", "out", "up/secret"):
            with pytest.raises(BuildError, match="No such file"), found(context, name):
                pass

    def test_what_is_ignored_is_not_found(self, context: Path) -> None:
        left_out = pytest.raises(BuildError, match=r"left out by .dockerignore")
        with left_out as caught, found(context, "a.txt", ignore="a.*"):
            pass
        assert caught.value.line == 3
        with found(context, "*.txt", ignore="a.*") as each:
            assert [source.path for source in each] == ["b.txt"]

    def test_exceptions_bring_nothing_else_back(self, context: Path) -> None:
        rules = "*\n!dir/sub/x.log"
        for pattern in ("a.txt", "dir/file"):
            with (
                pytest.raises(BuildError, match=r"left out by .dockerignore"),
                found(context, pattern, ignore=rules),
            ):
                pass
        with found(context, "*", ignore=rules) as each:
            assert [source.path for source in each] == ["dir"]
        with (
            pytest.raises(BuildError, match="left out"),
            found(context, "dir", ignore="*\n!a.txt"),
        ):
            pass

    def test_one_pattern_may_find_nothing_but_not_all(self, context: Path) -> None:
        with found(context, "a.txt", "none*") as each:
            assert len(each) == 1
        nothing = pytest.raises(BuildError, match=r"nothing is there for none\* no\*")
        with nothing, found(context, "none*", "no*"):
            pass

    def test_a_pattern_that_is_none_is_told(self, context: Path) -> None:
        with pytest.raises(BuildError, match="is no pattern"), found(context, "[a"):
            pass


class TestEntries:
    def test_parents_come_first_and_ignored_ones_not(self, context: Path) -> None:
        with found(context, ".", ignore="**/*.log\nb.txt") as (source,):
            paths = [entry.path for entry in source.entries()]
        assert paths == ["a.txt", "dir", "dir/file", "dir/link", "dir/sub"]

    def test_an_exception_is_found_below_what_is_ignored(self, context: Path) -> None:
        with found(context, "dir", ignore="dir\n!dir/sub/x.log") as (source,):
            assert [entry.path for entry in source.entries()] == ["sub/x.log"]


class TestContent:
    def test_times_are_no_content(self, context: Path) -> None:
        before = digest(context, ".")
        os.utime(context / "a.txt", (1, 1))
        assert digest(context, ".") == before

    @pytest.mark.parametrize("change", ["data", "mode", "name", "link", "kind"])
    def test_all_else_is(self, context: Path, change: str) -> None:
        before = digest(context, ".")
        if change == "data":
            (context / "a.txt").write_text("A")
        elif change == "mode":
            (context / "a.txt").chmod(0o600)
        elif change == "name":
            (context / "a.txt").rename(context / "c.txt")
        elif change == "link":
            (context / "dir" / "link").unlink()
            (context / "dir" / "link").symlink_to("sub")
        else:
            (context / "dir" / "file").unlink()
            (context / "dir" / "file").mkdir()
        assert digest(context, ".") != before

    def test_what_is_ignored_does_not_count(self, context: Path) -> None:
        before = digest(context, ".", ignore="b.txt")
        (context / "b.txt").write_text("changed")
        assert digest(context, ".", ignore="b.txt") == before

    def test_the_name_of_a_directory_does_not_count_as_its_contents_are_copied(
        self, context: Path
    ) -> None:
        before = digest(context, "dir")
        (context / "dir").rename(context / "other")
        assert digest(context, "other") == before
