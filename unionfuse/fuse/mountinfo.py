"""The kernel's table of mounts, as this process sees it: /proc/self/mountinfo (proc(5))."""

from __future__ import annotations

from typing import NamedTuple

_PATH = "/proc/self/mountinfo"
_ESCAPED = ((b"\\040", b" "), (b"\\011", b"\t"), (b"\\012", b"\n"), (b"\\134", b"\\"))


class Mount(NamedTuple):
    """One mount.

    Attributes:
        device: `MAJOR:MINOR` of the filesystem.
        root: the directory of the filesystem that is mounted.
        mountpoint: where.
        options: of this mount, not of its filesystem.
        fstype: type of the filesystem.
    """

    device: bytes
    root: bytes
    mountpoint: bytes
    options: tuple[bytes, ...]
    fstype: bytes


def mounts() -> list[Mount]:
    """Return the mounts, those on top of others after them."""
    with open(_PATH, "rb") as table:
        return [_parsed(line) for line in table.read().splitlines()]


def _parsed(line: bytes) -> Mount:
    fields, _, tail = line.partition(b" - ")
    _, _, device, root, mountpoint, options, *_ = fields.split(b" ")
    fstype = tail.partition(b" ")[0]
    return Mount(
        device, _unescaped(root), _unescaped(mountpoint), tuple(options.split(b",")), fstype
    )


def _unescaped(text: bytes) -> bytes:
    if b"\\" in text:
        for escaped, char in _ESCAPED:
            text = text.replace(escaped, char)
    return text
