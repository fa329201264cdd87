"""The init layer: what a container has of its own before it starts, below what it writes.

    etc/hosts etc/hostname etc/resolv.conf     of this container and this machine
    proc/ sys/ dev/                            for the runtime to mount on

It is a lower layer, between the image and the writable one: none of it shows as a change of the
container, nor does it get into an image that is committed. A directory of it takes the attributes
that the image's own has, since of a merged directory those on top are shown.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

_RESOLV_CONF = Path("/etc/resolv.conf")
_HOSTS = Path("/etc/hosts")
_MOUNTED_ON = (("proc", 0o555), ("sys", 0o555), ("dev", 0o755))
_LOOPBACK = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"

FILES = frozenset({b"etc/hosts", b"etc/hostname", b"etc/resolv.conf"})
"""What is the container's own, even where it has written to it: docker and podman mount them."""


def write(directory: Path, lowers: list[Path], hostname: str, *, host_network: bool) -> None:
    """Write the layer into `directory`, which is made.

    Args:
        directory: of the layer.
        lowers: the image's layers, the topmost first.
        hostname: of the container.
        host_network: whether names are looked up as on the host.

    Raises:
        OSError: if there is no room, or the image can not be read.
    """
    directory.mkdir()
    etc = _entry(lowers, "etc")
    # an `etc` that is a symlink or a file is the image's own decision: nothing is put over it
    if etc is None or etc.is_dir():
        _directory(directory / "etc", etc, 0o755)
        _write(directory / "etc/hostname", f"{hostname}\n")
        _write(directory / "etc/hosts", _hosts(hostname, host_network=host_network))
        resolver = _read(_RESOLV_CONF) if host_network else ""
        _write(directory / "etc/resolv.conf", resolver)
        if etc is not None:
            _give_times(directory / "etc", etc)
    for name, mode in _MOUNTED_ON:
        if (below := _entry(lowers, name)) is None or below.is_dir():
            _directory(directory / name, below, mode)
    if root := next(iter(lowers), None):
        _give_attributes(directory, root)


class _Below:
    """What the topmost layer that has a name has there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.st = path.lstat()

    def is_dir(self) -> bool:
        return stat.S_ISDIR(self.st.st_mode)


def _entry(lowers: list[Path], name: str) -> _Below | None:
    for lower in lowers:
        with contextlib.suppress(FileNotFoundError):
            found = _Below(lower / name)
            is_whiteout = stat.S_ISCHR(found.st.st_mode) and found.st.st_rdev == 0
            return None if is_whiteout else found
        if (lower / f".wh.{name}").exists():
            return None
    return None


def _directory(path: Path, below: _Below | None, mode: int) -> None:
    path.mkdir()
    path.chmod(mode)
    if below is not None:
        _give_attributes(path, below.path)


def _give_attributes(path: Path, original: Path) -> None:
    st = original.lstat()
    os.chown(path, st.st_uid, st.st_gid)
    path.chmod(stat.S_IMODE(st.st_mode))
    for name in os.listxattr(original):
        # marks of a layer are not attributes: one that is opaque hides what is below it anyhow
        if not name.startswith(("trusted.overlay.", "user.overlay.")):
            with contextlib.suppress(OSError):
                os.setxattr(path, name, os.getxattr(original, name))
    os.utime(path, ns=(st.st_atime_ns, st.st_mtime_ns))


def _give_times(path: Path, below: _Below) -> None:
    os.utime(path, ns=(below.st.st_atime_ns, below.st.st_mtime_ns))


def _hosts(hostname: str, *, host_network: bool) -> str:
    if host_network:
        return _read(_HOSTS) or _LOOPBACK
    return f"{_LOOPBACK}127.0.0.1\t{hostname}\n"


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="surrogateescape")
    except OSError:
        return ""


def _write(path: Path, text: str) -> None:
    path.write_text(text, errors="surrogateescape")
    path.chmod(0o644)
