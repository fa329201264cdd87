"""POSIX ACLs: inheritance of a default one by what is made in a temporary place; ids in them.

Twin of posix_acl_create in fs/posix_acl.c. What is made in its final directory inherits by
itself; only what replaces a whiteout is made elsewhere.

The value of `system.posix_acl_access` and `system.posix_acl_default` is a u32 version 2 and
then entries of {u16 tag, u16 perm, u32 id}, little-endian (linux/posix_acl_xattr.h).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

ACCESS = b"system.posix_acl_access"
DEFAULT = b"system.posix_acl_default"

_VERSION = struct.Struct("<I")
_ENTRY = struct.Struct("<HHI")
_USER_OBJ, _USER, _GROUP_OBJ, _GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
_MINIMAL = frozenset({_USER_OBJ, _GROUP_OBJ, _OTHER})


def inherit(default: bytes, mode: int) -> tuple[bytes | None, int]:
    """Return the access ACL and the permission bits of an object made below a default ACL.

    Args:
        default: value of the directory's `system.posix_acl_default`.
        mode: permission bits asked for, no umask applied.

    Returns:
        The value of `system.posix_acl_access`, None if the bits alone say it all; the bits.
    """
    entries = [list(entry) for entry in _ENTRY.iter_unpack(default[_VERSION.size :])]
    group = next((e for e in entries if e[0] == _MASK), None) or next(
        e for e in entries if e[0] == _GROUP_OBJ
    )
    bits = mode & ~0o777
    for shift, entry in ((6, _only(entries, _USER_OBJ)), (3, group), (0, _only(entries, _OTHER))):
        entry[1] &= (mode >> shift) & 7
        bits |= entry[1] << shift
    if all(entry[0] in _MINIMAL for entry in entries):
        return None, bits
    return default[: _VERSION.size] + b"".join(_ENTRY.pack(*entry) for entry in entries), bits


def with_ids(value: bytes, uid: Callable[[int], int], gid: Callable[[int], int]) -> bytes:
    """Return an ACL with other users and groups: what the functions make of those it has."""
    entries = []
    for tag, bits, owner in _ENTRY.iter_unpack(value[_VERSION.size :]):
        if tag in (_USER, _GROUP):
            owner = uid(owner) if tag == _USER else gid(owner)
        entries.append(_ENTRY.pack(tag, bits, owner))
    return value[: _VERSION.size] + b"".join(entries)


def _only(entries: list[list[int]], tag: int) -> list[int]:
    return next(entry for entry in entries if entry[0] == tag)
