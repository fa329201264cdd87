"""All that stands in the way of writing an upper in another form, before anything is done."""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING

from unionfuse.layer import names
from unionfuse.layer.directory import LayerDir
from unionfuse.layer.scan import marks_of
from unionfuse.offline.entries import Entry, entries_of
from unionfuse.offline.mending import keep_times

if TYPE_CHECKING:
    from collections.abc import Iterator

    from unionfuse.offline.forms import Form

# aufs' own, and so neither shown nor obeyed: what is prepared, until it gets its name by a rename
TEMPORARY = b".wh..wh.convert"

_LONGEST_HIDDEN = 255 - len(names.WHITEOUT_PREFIX)
_NO_NAMES = frozenset({b"", b".", b".."})
_PROTATTR = b"protattr"  # the flags of chattr(1)


def obstacles(
    upper: LayerDir, form: Form, own: bytes, index: LayerDir | None
) -> Iterator[tuple[bytes, str]]:
    """Yield path and cause of all that keeps `upper` from being written in `form`.

    Args:
        upper: its root.
        form: how it is to be written.
        own: the namespace in which it was written.
        index: WORKDIR/index, if there is one.

    Raises:
        OSError: what is met in reading it.
    """
    yield from _privilege(upper, form)
    pending = [(upper, b"")]
    while pending:
        directory, path = pending.pop()
        for entry in entries_of(directory):
            below = path + b"/" + entry.name if path else entry.name
            for cause in _of_entry(entry, form, own):
                yield below, cause
            if entry.is_dir:
                pending.append((LayerDir(directory, entry.name), below))
    for entry in entries_of(index) if index is not None else ():
        where = b"index/" + entry.name
        for cause in _of_marks(entry, form, own):
            yield where, cause
        if form.prefix is None and not entry.is_char_whiteout:
            yield where, "an entry of the index in the workdir: hard links would part"
        elif form.prefix == names.USER and entry.what not in ("file", "directory", "whiteout"):
            # overlayfs mounts no index of which an entry lacks its origin (ovl_verify_index)
            yield where, f"an entry of the index that is a {entry.what}: it can have no user.*"


def _privilege(upper: LayerDir, form: Form) -> Iterator[tuple[bytes, str]]:
    """Find out by trying what may not be written here."""
    if form.char_whiteouts:
        with keep_times(upper) as fd:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(TEMPORARY, dir_fd=fd)
            try:
                os.mknod(TEMPORARY, stat.S_IFCHR, 0, dir_fd=fd)
                os.unlink(TEMPORARY, dir_fd=fd)
            except OSError as err:
                yield b"", f"char 0:0 can not be made here: {err.strerror}"


def _of_entry(entry: Entry, form: Form, own: bytes) -> Iterator[str]:
    if entry.name.startswith(names.WHITEOUT_PREFIX):
        hidden = entry.hides
        if hidden is not None and (hidden in _NO_NAMES or not _is_whiteout(entry)):
            yield f"a {entry.what} that is taken for a whiteout: look at it first"
        return
    if _is_whiteout(entry) and (entry.is_char_whiteout or entry.has_whiteout_mark):
        if not form.char_whiteouts and len(entry.name) > _LONGEST_HIDDEN:
            yield "its name is too long for a whiteout of the form .wh.NAME"
        return
    yield from _of_marks(entry, form, own)


def _is_whiteout(entry: Entry) -> bool:
    return entry.is_empty_file or entry.is_char_whiteout


def _of_marks(entry: Entry, form: Form, own: bytes) -> Iterator[str]:
    for name in entry.marks:
        found = names.marker(name)
        if found is None:
            yield from _of_users_attribute(name, form, own)
            continue
        prefix, marker = found
        if marker == _PROTATTR and form.prefix is None:
            yield "flags of chattr are kept in an attribute, and no file says so"
        if not _leads_below(entry, prefix, marker):
            continue
        if not form.redirects:
            what = "redirect" if entry.is_dir else "metacopy"
            yield f"a {what}, which {form.name} can not say"
        elif own == names.TRUSTED and prefix == names.USER:
            # A user may have set it himself: obeyed, it would show him any file of a lower.
            yield f"{os.fsdecode(name)} in an upper of {os.fsdecode(own)}*: a user's own?"


def _leads_below(entry: Entry, prefix: bytes, marker: bytes) -> bool:
    """Tell whether a marker is a redirect or a metacopy that counts."""
    if entry.is_dir and marker == names.REDIRECT:
        return not marks_of(LayerDir(entry.where, entry.name), prefix).opaque
    return stat.S_ISREG(entry.st.st_mode) and marker == names.METACOPY


def _of_users_attribute(name: bytes, form: Form, own: bytes) -> Iterator[str]:
    if name.startswith(names.FUSE_OVERLAYFS) or form.prefix is None or form.prefix == own:
        return
    if form.stored(name, own) is None:
        yield f"a user's attribute {os.fsdecode(name)}, which can not be kept"
