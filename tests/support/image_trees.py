"""What an image shows, entry by entry, wherever it is mounted or unpacked; and what a layer has.

`python -m tests.support.image_trees ROOT FILE` records a tree into a file, as the user who can
read it.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
import sys
import tarfile
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tests.support.tree import Record, snapshot
from unionfuse.snapshots import protobuf

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_SECOND = 10**9
Tree = dict[bytes, Record]
"""What a tree holds, by name."""


@dataclass(frozen=True)
class Reason:
    """Why a difference between two trees is none of ours.

    Attributes:
        path: a pattern that all of the path matches.
        field: a pattern of what of the entry differs; "" for an entry that one of them lacks.
        why: whose doing it is.
        line: a pattern of what the difference is.
    """

    path: str
    field: str
    why: str
    line: str = ".*"

    def explains(self, path: str, field: str, line: str) -> bool:
        patterns = ((self.path, path), (self.field, field), (self.line, line))
        return all(re.fullmatch(*pair) for pair in patterns)


_LINK = Reason(
    r"usr/bin/perl5\.36\.0", "nlink",
    "an overlay breaks a hard link of the base image; the name that stays below keeps its count",
)  # fmt: skip
_ROOT = "podman makes the root anew for a layer without an entry of it, with mode 0555 and now"
_LEAK = "rootless buildah and podman bring a mark of overlayfs into layers, and overlayfs hides it"
_IMPURE = Reason(
    ".*", "xattrs", _LEAK, r"xattrs is \(\('user\.overlay\.impure', b'y'\),\), theirs \(\)"
)
_DEVICE = "dev/(console|full|null|ptmx|random|tty|urandom|zero)"
_DEVICES = Reason(
    _DEVICE, "",
    "no user can make devices: podman leaves them out, and we have empty files in their place",
)  # fmt: skip
REASONS = {
    "unpacked": [_LINK],
    "umoci": [_LINK],
    "podman": [Reason(r"\.", "mode", _ROOT), Reason(r"\.", "mtime_ns", _ROOT)],
    "rootless podman": [_DEVICES, _IMPURE],
    "rootless umoci": [
        Reason(_DEVICE, "mode", "an empty file in place of a device has its mode there, and 0 here",
               r"mode is 0, theirs \d+"),
        Reason("srv/fifo", "[ug]id", "umoci keeps owners in an attribute, and a fifo takes none",
               "[ug]id is [12], theirs 0"),
        Reason("usr/bin/ping", "xattrs", "umoci is in no namespace, where one may set capabilities",
               r"xattrs is \(\('security\.capability', .*\),\), theirs \(\)"),
    ],
    "commit": [
        Reason("etc", "mtime", "podman makes files in it for the sake of its mounts"),
        Reason("srv/perl", "", "a name that an overlay gives its own file; we keep the hard link"),
        Reason(r"usr/share/doc/\.wh\.(\.wh\.\.opq|new)", "",
               "podman hides all that is below a directory, and we each name of it"),
    ],
    "rootless commit": [
        Reason(".*", "xattrs", _LEAK,
               r"xattrs is \((.*?),?\), theirs \(\1(, )?"
               r"(\('SCHILY\.xattr\.user\.overlay\.(impure|origin)', 'y?'\)(, )?)+,?\)"),
    ],
}  # fmt: skip
"""Why what others show, or commit, of the image of `debian` is not what we do."""


def recorded(root: Path) -> Tree:
    """Record a tree, with mtimes in whole seconds."""
    found = snapshot(root, times="exact", entry_inos=False)
    for name, record in found.items():
        assert record.mtime_ns is not None
        seconds = record.mtime_ns // _SECOND * _SECOND
        found[name] = replace(record, mtime_ns=seconds, ctime_ns=None)
    return found


_ROOTLESS_OWNER = "user.rootlesscontainers"
_THE_USER = 0xFFFFFFFF  # who is root in the image


@dataclass(frozen=True)
class _Owner:
    """What rootless umoci keeps of a file's owner, in the form of rootlesscontaine.rs."""

    uid: Annotated[int, 1] = 0
    gid: Annotated[int, 2] = 0


def owned(record: Record) -> Record:
    """Return what an entry of rootless umoci, all of which are one user's, stands for."""
    xattrs = dict(record.xattrs)
    owner = protobuf.decode(_Owner, xattrs.pop(_ROOTLESS_OWNER, b""))
    uid, gid = (0 if each == _THE_USER else each for each in (owner.uid, owner.gid))
    return replace(record, uid=uid, gid=gid, xattrs=tuple(xattrs.items()))


def read(file: Path) -> Tree:
    """Read what the command has recorded."""
    found: Tree = pickle.loads(file.read_bytes())
    return found


def compare(
    ours: Mapping[bytes, object], theirs: Mapping[bytes, object], reasons: Iterable[Reason]
) -> dict[str, list[str]]:
    """Return the differences: one line each, by the reason that explains them, "" for none."""
    found: dict[str, list[str]] = {}
    reasons = list(reasons)
    for name in sorted({*ours, *theirs}):
        path = name.decode(errors="backslashreplace")
        for field, line in _differing(ours.get(name), theirs.get(name)):
            why = next((each.why for each in reasons if each.explains(path, field, line)), "")
            found.setdefault(why, []).append(f"{path}: {line}")
    return found


def _differing(our: Any, their: Any) -> list[tuple[str, str]]:
    if our is None or their is None:
        return [("", "only theirs" if our is None else "only ours")]
    pairs = [(each.name, getattr(our, each.name), getattr(their, each.name))
             for each in fields(our)]  # fmt: skip
    return [
        (name, f"{name} is {left!r}, theirs {right!r}")
        for name, left, right in pairs if left != right
    ]  # fmt: skip


def top_layer(layout: Path) -> Path:
    """Return the blob of the topmost layer of the one image of a layout."""
    index = json.loads((layout / "index.json").read_bytes())
    digest = index["manifests"][0]["digest"]
    manifest = json.loads((layout / "blobs" / digest.replace(":", "/")).read_bytes())
    return layout / "blobs" / manifest["layers"][-1]["digest"].replace(":", "/")


@dataclass(frozen=True)
class Entry:
    """One entry of a layer.

    Attributes:
        target: of a link.
        content: a digest.
        mtime: seconds; None if it is that of the clock.
    """

    type: bytes
    mode: int
    uid: int
    gid: int
    target: str
    content: str
    mtime: int | None
    xattrs: tuple[tuple[str, str], ...]


def entries(tar: Path, but: tuple[str, ...], *, since: float | None = None) -> dict[bytes, Entry]:
    """Return what is in a layer, by name.

    Args:
        tar: the layer, compressed or not.
        but: names that are left out, with all below them.
        since: seconds; later times are the clock's, and are left out. None to leave out all.
    """
    with tarfile.open(tar) as archive:
        return {
            os.fsencode(member.name): _entry(archive, member, since)
            for member in archive
            if not any(member.name == name or member.name.startswith(f"{name}/") for name in but)
        }


def _entry(archive: tarfile.TarFile, member: tarfile.TarInfo, since: float | None) -> Entry:
    file = archive.extractfile(member) if member.isreg() else None
    is_marker = "/.wh." in f"/{member.name}"  # nobody looks at its attributes
    is_set = since is not None and member.mtime < since and not is_marker
    return Entry(
        member.type,
        0 if is_marker else member.mode & 0o7777,
        member.uid,
        member.gid,
        member.linkname if member.islnk() or member.issym() else "",
        hashlib.sha256(file.read()).hexdigest() if file else "",
        int(member.mtime) if is_set else None,
        tuple(sorted(item for item in member.pax_headers.items() if "SCHILY.xattr." in item[0])),
    )


if __name__ == "__main__":
    Path(sys.argv[2]).write_bytes(pickle.dumps(recorded(Path(sys.argv[1]))))
