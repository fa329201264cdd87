"""The documentation names tests and files that are there."""

import re
from pathlib import Path

import pytest

from tests.support.mounts import REPOSITORY

DOCS = sorted([*(REPOSITORY / "docs").rglob("*.md"), REPOSITORY / "README.md"])
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")
NAMED = re.compile(r"((?:unit|integration|property)/\w+(?:/\w+)*)((?:[:,]? `[\w.]+`)*)")


def named_tests() -> list[tuple[str, str]]:
    text = (REPOSITORY / "docs/explanation/semantics.md").read_text()
    found = {
        (file, name)
        for file, names in NAMED.findall(text)
        for name in re.findall(r"`([\w.]+)`", names) or [""]
    }
    return sorted(found)


@pytest.mark.parametrize(("file", "name"), named_tests())
def test_a_behaviour_is_held_by_the_test_that_is_named(file: str, name: str) -> None:
    source = (REPOSITORY / "tests" / file).with_suffix(".py").read_text()
    if not name:  # the whole file
        return
    end = re.escape(name.removeprefix("..."))
    beginning = r"test_\w*" if name.startswith("...") else "test_"
    assert re.search(rf"def {beginning}{end}\b", source)


@pytest.mark.parametrize("page", DOCS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_links_lead_somewhere(page: Path) -> None:
    links = LINK.findall(page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []
