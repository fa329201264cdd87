"""Records, compared with dataclasses."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest

from unionfuse.record import field, mutable_record, record, replace


@record
class Frozen:
    one: int
    two: str = "two"
    many: list[int] = field(default_factory=list)

    @property
    def both(self) -> str:
        return f"{self.one} {self.two}"

    @classmethod
    def made(cls) -> Frozen:
        return cls(7)


@mutable_record
class Mutable:
    one: int
    many: list[int] = field(default_factory=list)


@dataclasses.dataclass(frozen=True, slots=True)
class Dataclass:
    one: int
    two: str = "two"
    many: list[int] = dataclasses.field(default_factory=list)


@pytest.mark.parametrize(
    "arguments", [((1,), {}), ((1, "x", [3]), {}), ((), {"two": "y", "one": 4})]
)
def test_what_is_given_and_what_is_not(arguments):
    args, kwargs = arguments
    ours, theirs = Frozen(*args, **kwargs), Dataclass(*args, **kwargs)
    assert (ours.one, ours.two, ours.many) == (theirs.one, theirs.two, theirs.many)
    assert repr(ours) == repr(theirs).replace("Dataclass", "Frozen")


@pytest.mark.parametrize("arguments", [(), (1, 2, 3, 4)])
def test_too_few_and_too_many(arguments):
    for cls in (Frozen, Dataclass):
        with pytest.raises(TypeError):
            cls(*arguments)


def test_a_default_is_made_for_each():
    first, second = Mutable(1), Mutable(1)
    first.many.append(5)
    assert second.many == []
    assert first != second
    second.many.append(5)
    assert first == second


def test_one_that_is_frozen_does_not_change_and_may_be_a_key():
    one = Frozen(1, "a", ())
    with pytest.raises(AttributeError):
        one.one = 2
    with pytest.raises(AttributeError):
        del one.one
    assert {one: 1}[Frozen(1, "a", ())] == 1


def test_one_that_is_not_may_be_set_and_is_no_key():
    one = Mutable(1)
    one.one = 2
    assert one == Mutable(2)
    with pytest.raises(TypeError):
        hash(one)


def test_there_are_no_other_fields():
    with pytest.raises(AttributeError):
        Mutable(1).other = 3


def test_methods_stay():
    assert Frozen.made().both == "7 two"


def test_a_copy_differs_where_it_is_said_to():
    assert replace(Frozen(1, "a"), two="b") == Frozen(1, "b")
    with pytest.raises(TypeError):
        replace(Frozen(1), other=1)


def test_what_serves_a_mount_does_not_load_dataclasses():
    """That and what it needs took a quarter of the time to the first answer."""
    script = (
        "import sys, unionfuse.cli.overlay_cmd, unionfuse.fuse.plan, unionfuse.fuse.daemon\n"
        "import unionfuse.fuse.kernel.init, unionfuse.layer.layers, unionfuse.fuse.logs\n"
        "import unionfuse.fuse.serving, unionfuse.union.kinds, unionfuse.fuse.kernel.session\n"
        "print(sorted({'dataclasses', 'inspect', 'ast', 'click'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "[]\n"
