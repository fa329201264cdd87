"""Whether what an origin names is there. Twin of ovl_check_origin_fh (fs/overlayfs/namei.c)."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from unionfuse.layer import handle
from unionfuse.layer.directory import LayerDir
from unionfuse.layer.scan import find
from unionfuse.syscalls import handles

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self


_NO_UUID = bytes(16)


class Origins:
    """The filesystems of the lowers, in which files are found by their handles."""

    def __init__(self, lowers: tuple[LayerDir, ...]) -> None:
        """Open each filesystem once."""
        self._lowers = lowers
        self._fd_of: dict[int, int] = {}
        self._uuid_of: dict[int, bytes] = {}
        self.may_open = True  # until the kernel refuses it

    def __enter__(self) -> Self:
        for lower in self._lowers:
            fd = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=lower.fd())
            device = os.fstat(fd).st_dev
            if device in self._fd_of:
                os.close(fd)
            else:
                self._fd_of[device] = fd
                self._uuid_of[device] = handles.filesystem_uuid(fd)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        while self._fd_of:
            os.close(self._fd_of.popitem()[1])

    def is_stale(self, origin: bytes) -> bool:
        """Tell whether no lower's filesystem has what `origin` names; False where none can say."""
        found = handle.parse(origin)
        if found is None or not self.may_open:
            return False
        devices = [
            device
            for device, uuid in self._uuid_of.items()
            if _NO_UUID in (found.uuid, uuid) or uuid == found.uuid
        ]
        return not any(self._has(device, found) for device in devices)

    def _has(self, device: int, found: handle.FileHandle) -> bool:
        try:
            fd = handles.open_by_handle(self._fd_of[device], found.handle_type, found.fid)
        except OSError as err:
            if err.errno == errno.EPERM:
                self.may_open = False
            return err.errno != errno.ESTALE
        os.close(fd)
        return True

    def has_path(self, path: bytes) -> bool:
        """Tell whether a lower has `path`, which is what fuse-overlayfs keeps as the origin."""
        return any(_has_path(lower, path.split(b"/")) for lower in self._lowers)


def _has_path(at: LayerDir, parts: list[bytes]) -> bool:
    for part in parts[:-1]:
        st, _ = find(at, part)
        if st is None or not stat.S_ISDIR(st.st_mode):
            return False
        at = LayerDir(at, part)
    return find(at, parts[-1])[0] is not None
