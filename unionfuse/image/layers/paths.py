"""The names in a layer tar: what they name in the layer's directory, and what they mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unionfuse.image.errors import Malformed, Refused
from unionfuse.image.layers.reader import shown
from unionfuse.layer import names

if TYPE_CHECKING:
    from unionfuse.image.layers.limits import Limits

NAME_MAX = 255
DOTS = (b"", b".", b"..")


def cleaned(name: bytes, limits: Limits) -> bytes:
    """Return the path that `name` in a tar is, from the root of the layer; empty for that itself.

    An absolute name begins at the root of the layer, as for every other reader of layers.

    Raises:
        Malformed: if it goes up, or is no name.
        Refused: if it is longer or deeper than `limits` have it.
    """
    if len(name) > limits.path_bytes:
        raise Refused(f"a name in the layer has {len(name)} bytes: {shown(name)}")
    if b"\0" in name or not name:
        raise Malformed(f"no name of a file: {shown(name)}")
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if len(parts) > limits.depth:
        raise Refused(f"a name in the layer has {len(parts)} parts: {shown(name)}")
    for part in parts:
        if part == b"..":
            raise Malformed(f"a name in the layer leads out of its directory: {shown(name)}")
        # The whiteout of a long name is a name that no file could have.
        if len(part.removeprefix(names.WHITEOUT_PREFIX)) > NAME_MAX:
            raise Refused(f"a name in the layer has {len(part)} bytes in one part: {shown(name)}")
    return b"/".join(parts)


def split(path: bytes) -> tuple[bytes, bytes]:
    """Return the directory of a path, and its name there."""
    parent, _, name = path.rpartition(b"/")
    return parent, name


def join(parent: bytes, name: bytes) -> bytes:
    """Return the path of `name` in a directory."""
    return parent + b"/" + name if parent else name


def hidden_by(name: bytes, path: bytes) -> bytes | None:
    """Return what a whiteout of this name hides; None for aufs' own files, which say nothing.

    Raises:
        Malformed: if it hides nothing that could be there (layer.md, "Whiteouts").
    """
    if name.startswith(names.AUFS_META_PREFIX):
        return None
    hidden = name[len(names.WHITEOUT_PREFIX) :]
    if hidden in DOTS:
        raise Malformed(f"{shown(path)} is a whiteout of nothing")
    return hidden
