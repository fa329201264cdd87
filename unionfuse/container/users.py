"""Who a process in a container is: the User of an image, by the image's own passwd and group.

A user is `USER`, `UID`, `USER:GROUP`, `UID:GID`, `UID:GROUP` or `USER:GID` (image-spec config.md,
"User"); empty means root. The files belong to the image, which a stranger may have made: no
symlink in it leads out, and what is too large or no regular file is not read.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from unionfuse.container.errors import ContainerError
from unionfuse.record import record
from unionfuse.syscalls.openat2 import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, openat2

if TYPE_CHECKING:
    from pathlib import Path

_MAX_FILE = 16 << 20
_IN_ROOT = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
_MAX_ID = (1 << 31) - 1  # as runtime-spec's implementations take it


@record
class User:
    """Who a process is.

    Attributes:
        groups: further groups, without `gid`.
        home: of passwd, `/` if nothing is known.
    """

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    home: str = "/"


@record
class _Account:
    name: str
    uid: int
    gid: int
    home: str


@record
class _Group:
    name: str
    gid: int
    members: tuple[str, ...]


def resolve(text: str, passwd: str, group: str) -> User:
    """Return the user that `text` means, given the content of /etc/passwd and /etc/group.

    A uid that passwd does not have is taken as it is, with gid 0. Further groups are those of
    which the account is a member, unless a group was named.

    Raises:
        ContainerError: for a name that is not there, or an id out of range.
    """
    user_text, colon, group_text = text.partition(":")
    account = _account(user_text or "0", _accounts(passwd))
    groups = _groups(group)
    if colon and group_text:
        return User(account.uid, _gid(group_text, groups), (), account.home)
    further = {g.gid for g in groups if account.name and account.name in g.members}
    return User(account.uid, account.gid, tuple(sorted(further - {account.gid})), account.home)


def read_accounts(root_fd: int) -> tuple[str, str]:
    """Return /etc/passwd and /etc/group of a container, given its root; empty if not there."""
    return _read(root_fd, b"etc/passwd"), _read(root_fd, b"etc/group")


def open_below(root: Path, path: str, flags: int = os.O_PATH) -> int:
    """Open `path` as a process sees it whose root is `root`; return a descriptor.

    Raises:
        OSError: as open(2).
    """
    root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return openat2(root_fd, os.fsencode(path), flags, _IN_ROOT)
    finally:
        os.close(root_fd)


def _read(root_fd: int, path: bytes) -> str:
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY  # a FIFO must not hold us up
    try:
        fd = openat2(root_fd, path, flags, _IN_ROOT)
    except OSError:
        return ""
    st = os.fstat(fd)
    if not stat.S_ISREG(st.st_mode) or st.st_size > _MAX_FILE:
        os.close(fd)
        return ""
    with open(fd, "rb") as file:
        return file.read(_MAX_FILE).decode("utf-8", "surrogateescape")


def _account(text: str, accounts: list[_Account]) -> _Account:
    for account in accounts:
        if account.name == text:
            return account
    if not text.isdecimal():
        raise ContainerError(f"the image has no user {text!r} in /etc/passwd")
    uid = _id(text)
    for account in accounts:
        if account.uid == uid:
            return account
    return _Account("", uid, 0, "/")


def _gid(text: str, groups: list[_Group]) -> int:
    for group in groups:
        if group.name == text:
            return group.gid
    if not text.isdecimal():
        raise ContainerError(f"the image has no group {text!r} in /etc/group")
    return _id(text)


def _id(text: str) -> int:
    if int(text) > _MAX_ID:
        raise ContainerError(f"no such id: {text}; the highest is {_MAX_ID}")
    return int(text)


def _accounts(passwd: str) -> list[_Account]:
    found = []
    for line in passwd.splitlines():
        fields = line.split(":")
        if len(fields) >= 4 and fields[2].isdecimal() and fields[3].isdecimal():
            home = fields[5] if len(fields) > 5 and fields[5] else "/"
            found.append(_Account(fields[0], int(fields[2]), int(fields[3]), home))
    return found


def _groups(group: str) -> list[_Group]:
    found = []
    for line in group.splitlines():
        fields = line.split(":")
        if len(fields) >= 3 and fields[2].isdecimal():
            members = fields[3] if len(fields) > 3 else ""
            found.append(_Group(fields[0], int(fields[2]), tuple(members.split(","))))
    return found
