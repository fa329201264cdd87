"""The filters of List."""

from __future__ import annotations

import pytest

from unionfuse.snapshots.errors import InvalidArgument
from unionfuse.snapshots.filters import parse
from unionfuse.snapshots.record import Kind, Record

RECORD = Record(
    1, "default/2/layer", "base", Kind.ACTIVE, 0, 0,
    {"containerd.io/gc.root": "now", "l": "a b", "quoted": 'say "x"'},
)  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "",
        "name",
        "name==default/2/layer",
        'name=="default/2/layer"',
        "name!=other",
        "name~=^default/",
        "name~=/2\\/layer$/",
        "name~=|layer|",
        'name~="lay(er|or)"',
        "kind==active",
        "parent==base,kind==active",
        'labels."containerd.io/gc.root"',
        'labels."containerd.io/gc.root"==now',
        "labels.l~=a.b",
        'labels.quoted=="say \\"x\\""',
        "labels.none!=x",
        "none!=x",
    ],
)
def test_they_hold(text: str) -> None:
    assert parse([text])(RECORD)


@pytest.mark.parametrize(
    "text",
    [
        "name==other",
        "name!=default/2/layer",
        "name~=^layer",
        "kind==view",
        "parent==base,kind==committed",
        "labels.none",
        "labels",
        "none",
        'labels.none==""',
    ],
)
def test_they_do_not_hold(text: str) -> None:
    assert not parse([text])(RECORD)


def test_one_of_several_has_to_hold() -> None:
    assert parse(["name==other", "kind==active"])(RECORD)
    assert not parse(["name==other", "kind==view"])(RECORD)


def test_without_any_everything_is_meant() -> None:
    assert parse([])(RECORD)


@pytest.mark.parametrize(
    "text",
    [
        "==x",
        "name=x",
        "name==",
        "name==a,",
        "name==a b",
        "labels.",
        'name=="a',
        "name~=(",
        ",",
        "name~=",
    ],
)
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="filter"):
        parse([text])
