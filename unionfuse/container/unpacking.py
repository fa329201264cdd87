"""Take members of a tar into a directory, as tarfile does, but for what it leaves out."""

from __future__ import annotations

import os
import tarfile


def extract(tar: tarfile.TarFile, member: tarfile.TarInfo, directory: str) -> None:
    """Write a member below `directory`, with its owner, mode and time; absolute names, too.

    Raises:
        OSError: if it can not be written.
        tarfile.TarError: if it would be written outside, or is damaged.
    """
    member.name = member.name.lstrip("/")
    if member.islnk():
        member.linkname = member.linkname.lstrip("/")
    try:
        tar.extract(member, directory, numeric_owner=True, filter=kept_below)
    except KeyError:  # tarfile's own, of a hard link
        text = f"{member.name} is a link to {member.linkname}, which is not there"
        raise tarfile.ExtractError(text) from None
    path = os.path.join(directory, member.name).rstrip("/")  # with a slash it would be followed
    if os.path.islink(path):  # to which tarfile gives no time
        os.utime(path, (member.mtime, member.mtime), follow_symlinks=False)


def kept_below(member: tarfile.TarInfo, path: str) -> tarfile.TarInfo:
    """Refuse what would be written outside; the rest is kept as it is, setuid too."""
    tarfile.tar_filter(member, path)
    return member
