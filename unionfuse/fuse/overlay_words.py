"""The layers as overlayfs' words of `-o`: lowerdir=, upperdir=, workdir= (overlayfs.rst)."""

from __future__ import annotations

import os

from unionfuse.fuse.errors import MountError
from unionfuse.fuse.options import split_layers
from unionfuse.fuse.words import split_words
from unionfuse.record import record

_WORDS = ("lowerdir", "lowerdir+", "upperdir", "workdir")


@record
class LayerWords:
    """The layers that were given as words.

    Attributes:
        lowers: topmost first.
        upper, workdir: None where there was no such word.
    """

    lowers: tuple[bytes, ...] = ()
    upper: bytes | None = None
    workdir: bytes | None = None


def take_layers(texts: tuple[str, ...]) -> tuple[LayerWords | None, tuple[str, ...]]:
    r"""Take the layers out of the values of all `-o`; return them, if any, and the other words.

    `\,` is a comma, `\:` a colon and `\\` a backslash in a path. Later words win; each
    `lowerdir+=` adds one layer below. Without an upper a workdir is for nothing, and skipped.

    Raises:
        MountError: for an upper or a workdir without a lower.
    """
    lowers: list[bytes] = []
    given: dict[str, bytes] = {}
    others: list[str] = []
    for word in (word for text in texts for word in split_words(text)):
        key, equals, value = word.partition("=")
        if key not in _WORDS or not equals:
            others.append(word)
        elif key == "lowerdir":
            lowers = split_layers(os.fsencode(value))
        elif key == "lowerdir+":
            lowers.append(_unescaped(value))
        else:
            given[key] = _unescaped(value)
    if not lowers and not given:
        return None, tuple(others)
    if not lowers:
        raise MountError("upperdir= and workdir= need a lowerdir=")
    upper = given.get("upperdir")
    workdir = None if upper is None else given.get("workdir")
    return LayerWords(tuple(lowers), upper, workdir), tuple(others)


def _unescaped(value: str) -> bytes:
    parts = value.split("\\\\")
    return os.fsencode("\\".join(part.replace("\\", "") for part in parts))
