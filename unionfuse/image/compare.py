"""What is different between two images, by the indexes of their layers: no file is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec

from unionfuse.image.layers.index import IndexEntry, read_index
from unionfuse.image.store.unpacking import INDEX

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_HARD_LINK, _WHITEOUT, _DIRECTORY = "h", "w", "d"


class Difference(NamedTuple):
    """One path that is not the same.

    Attributes:
        kind: A, added; C, changed; D, deleted.
        path: from the root, without a slash before it.
    """

    kind: Literal["A", "C", "D"]
    path: bytes


def differences(old: Sequence[Path], new: Sequence[Path]) -> Iterator[Difference]:
    """Yield what is different in `new`, parents first.

    Below a directory that was deleted nothing more is told.

    Args:
        old, new: directories of layers/, the bottom first.

    Raises:
        Corrupt: if an index is damaged.
        OSError: if one can not be read.
    """
    shared = 0
    while shared < min(len(old), len(new)) and old[shared] == new[shared]:
        shared += 1
    common = _shown({}, old[:shared])
    before, after = _shown(dict(common), old[shared:]), _shown(common, new[shared:])
    gone = b""
    for path in sorted(before.keys() | after.keys(), key=lambda path: path.split(b"/")):
        if path not in after:
            if not gone or not path.startswith(gone):
                gone = path + b"/"
                yield Difference("D", path)
        elif path not in before:
            yield Difference("A", path)
        elif not _is_same(before[path], after[path]):
            yield Difference("C", path)


def _shown(entries: dict[bytes, IndexEntry], layers: Sequence[Path]) -> dict[bytes, IndexEntry]:
    """Put layers on what is shown."""
    for directory in layers:
        with (directory / INDEX).open("rb") as file:
            _, found = read_index(file)
            _apply(entries, list(found))
    return entries


def _apply(shown: dict[bytes, IndexEntry], layer: list[IndexEntry]) -> None:
    """Put one layer on what is shown; its marks are about what is below it alone."""
    hidden = {entry.path for entry in layer if entry.kind == _WHITEOUT}
    opaque = {entry.path for entry in layer if entry.is_opaque}
    # What takes the place of a directory hides what was in it.
    hidden |= {
        entry.path
        for entry in layer
        if entry.kind != _DIRECTORY and entry.path in shown and shown[entry.path].kind == _DIRECTORY
    }
    if hidden or opaque:
        for path in [path for path in shown if _is_hidden(path, hidden, opaque)]:
            del shown[path]
    of_layer = {entry.path: entry for entry in layer}
    for entry in layer:
        if entry.kind == _WHITEOUT:
            continue
        below = shown.get(entry.path)
        if entry.is_implied and below is not None and below.kind == _DIRECTORY:
            continue
        if entry.kind == _HARD_LINK:
            target = of_layer.get(entry.target) or shown.get(entry.target)
            if target is not None:
                entry = msgspec.structs.replace(target, path=entry.path)
        shown[entry.path] = entry


def _is_hidden(path: bytes, hidden: set[bytes], opaque: set[bytes]) -> bool:
    if path in hidden:
        return True
    parent = path
    while b"/" in parent:
        parent = parent.rpartition(b"/")[0]
        if parent in hidden or parent in opaque:
            return True
    return bool(path) and b"" in opaque


def _is_same(before: IndexEntry, after: IndexEntry) -> bool:
    plain = {"is_opaque": False, "is_implied": False}
    return msgspec.structs.replace(before, **plain) == msgspec.structs.replace(after, **plain)
