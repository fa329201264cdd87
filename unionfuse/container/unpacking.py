"""Take members of a tar into a directory, as tarfile does, but for what it leaves out."""

from __future__ import annotations

import os
import tarfile


def extract(tar: tarfile.TarFile, member: tarfile.TarInfo, directory: str) -> None:
    """Write a member below `directory`, with its owner, mode and time.

    Raises:
        OSError: if it can not be written.
        tarfile.TarError: if it would be written outside, or is damaged.
    """
    tar.extract(member, directory, numeric_owner=True, filter=kept_below)
    path = os.path.join(directory, member.name).rstrip("/")  # with a slash it would be followed
    if os.path.islink(path):  # to which tarfile gives no time
        os.utime(path, (member.mtime, member.mtime), follow_symlinks=False)


def kept_below(member: tarfile.TarInfo, path: str) -> tarfile.TarInfo:
    """Refuse what would be written outside; the rest is kept as it is, setuid too."""
    tarfile.tar_filter(member, path)
    return member
