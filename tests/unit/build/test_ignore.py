from __future__ import annotations

import re

import pytest

from unionfuse.build.errors import BuildError
from unionfuse.build.ignore import Ignore, translate


@pytest.mark.parametrize(
    ("rules", "path", "ignored"),
    [
        ("a", "a", True),
        ("a", "a/b/c", True),
        ("a", "b/a", False),
        ("/a/", "a", True),
        ("./a", "a", True),
        ("*.log", "x.log", True),
        ("*.log", "dir/x.log", False),
        ("**/*.log", "x.log", True),
        ("**/*.log", "d/e/x.log", True),
        ("*/temp*", "some/temporary", True),
        ("*/temp*", "some/dir/temporary", False),
        ("temp?", "tempa", True),
        ("temp?", "temp", False),
        ("a/**", "a/b/c", True),
        ("a/**", "a", False),
        ("**", "anything/at/all", True),
        ("[a-c]x", "bx", True),
        ("[^a-c]x", "bx", False),
        ("\\*", "*", True),
        ("\\*", "x", False),
        ("*.md\n!README.md", "README.md", False),
        ("*.md\n!README.md", "OTHER.md", True),
        ("!README.md\n*.md", "README.md", True),
        ("a\n!a/b", "a/b/c", False),
        ("a\n!a/b", "a/c", True),
        ("# a", "# a", False),
        ("\n  \n.", "a", False),
        ("a/../b", "b", True),
        ("**/node_modules", "x/node_modules/y", True),
        ("*", "a/b", True),
    ],
)
def test_a_path_is_left_out_as_docker_does(rules: str, path: str, ignored: bool) -> None:
    assert Ignore(rules).ignores(path) is ignored


@pytest.mark.parametrize("rules", ["a\n[b", "a\n!", "x\n\\"])
def test_a_pattern_that_is_none_is_told_with_its_line(rules: str) -> None:
    with pytest.raises(BuildError, match=r"\.dockerignore:2"):
        Ignore(rules)


def test_stars_of_copy_do_not_go_over_slashes() -> None:
    assert re.fullmatch(translate("a**"), "abc")
    assert not re.fullmatch(translate("a**"), "a/c")
