"""What keeps /dev/fuse from being used is told with what would help."""

from __future__ import annotations

import errno
import os

import pytest

from unionfuse.fuse import mounting
from unionfuse.fuse.errors import MountError
from unionfuse.fuse.options import MountOptions


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOENT, ["no /dev/fuse", "modprobe fuse", "--device /dev/fuse"]),
        (errno.ENODEV, ["no /dev/fuse", "modprobe fuse", "--device /dev/fuse"]),
        (errno.ENXIO, ["no /dev/fuse", "modprobe fuse", "--device /dev/fuse"]),
        (errno.EACCES, ["/dev/fuse: Permission denied", "chmod 666 /dev/fuse", "--device"]),
        (errno.EPERM, ["/dev/fuse: Operation not permitted", "container", "--device /dev/fuse"]),
        (errno.EMFILE, ["/dev/fuse: Too many open files"]),
    ],
    ids=lambda value: errno.errorcode[value] if isinstance(value, int) else "",
)
def test_a_device_that_can_not_be_opened_is_explained_in_one_line(
    monkeypatch: pytest.MonkeyPatch, code: int, words: list[str]
) -> None:
    def refuse(path: str, flags: int) -> int:
        assert path == "/dev/fuse"
        raise OSError(code, os.strerror(code), path)

    monkeypatch.setattr(mounting.os, "open", refuse)
    with pytest.raises(MountError) as caught:
        mounting.mount(b"/nowhere", MountOptions())
    said = str(caught.value)
    assert "\n" not in said
    assert [word for word in words if word not in said] == []
