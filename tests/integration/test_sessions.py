"""What each session carries, cell by cell of docs/reference/sessions.md."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import struct
from typing import TYPE_CHECKING

import pytest

from tests.support.files import opened, write
from tests.support.fsx_calls import FUSE_MODES, MODES
from tests.support.programs import run, served
from tests.support.sessions import KERNEL_PASSTHROUGH, KERNEL_SESSIONS, PYFUSE3
from unionfuse.syscalls import inodeflags
from unionfuse.syscalls.fallocate import fallocate
from unionfuse.syscalls.handles import name_to_handle
from unionfuse.syscalls.statx import birth_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [pytest.mark.fuse, pytest.mark.timeout(60), pytest.mark.data]

SIZE = 65_536
UNSHARE_RANGE = 0x40
FICLONE = 0x40049409
XATTR_CREATE, XATTR_REPLACE = 1, 2
AT_FDCWD, AT_SYMLINK_FOLLOW = -100, 0x400
IN_MODIFY, IN_ATTRIB, IN_CREATE, IN_DELETE = 0x2, 0x4, 0x100, 0x200
APPEND, IMMUTABLE = 0x20, 0x10  # FS_APPEND_FL, FS_IMMUTABLE_FL

libc = ctypes.CDLL(None, use_errno=True)


@pytest.fixture
def file(layers) -> Iterator[Path]:
    """Serve a file that is in a lower."""
    (layers.lowers[0] / "file").write_bytes(b"a" * SIZE)
    with served(layers) as mnt:
        yield mnt / "file"


def code_of(call: Callable[[], object]) -> str:
    """Return the name of the errno of a call; "" if it succeeds."""
    try:
        call()
    except OSError as error:
        # the two are one number
        return errno.errorcode[error.errno or 0].replace("ENOTSUP", "EOPNOTSUPP")
    return ""


def flags_of(path: Path) -> int:
    with opened(path) as fd:
        return struct.unpack("=I", inodeflags.get_flags(fd, inodeflags.FS_IOC_GETFLAGS))[0]


def set_flags(path: Path, flags: int) -> None:
    with opened(path) as fd:
        inodeflags.set_flags(fd, inodeflags.FS_IOC_SETFLAGS, struct.pack("=I", flags))


# --- Names ----------------------------------------------------------------------------------------


def test_a_file_without_a_name(file, session):
    def make() -> None:
        fd = os.open(file.parent, os.O_TMPFILE | os.O_RDWR, 0o600)
        try:
            os.write(fd, b"nameless")
            source = b"/proc/self/fd/%d" % fd
            target = os.fsencode(file.with_name("new"))
            if libc.linkat(AT_FDCWD, source, AT_FDCWD, target, AT_SYMLINK_FOLLOW) != 0:
                raise OSError(ctypes.get_errno(), "linkat")
        finally:
            os.close(fd)

    if session == PYFUSE3:
        assert code_of(make) == "EOPNOTSUPP"
    else:
        make()
        assert file.with_name("new").read_bytes() == b"nameless"


@pytest.mark.root
def test_a_file_handle_finds_its_file(file):
    with opened(file.parent) as directory:
        kind, data = name_to_handle(directory, b"file")
        packed = struct.pack("=Ii", len(data), kind) + data
        with opened(file) as held:  # the kernel does not forget it
            fd = libc.open_by_handle_at(directory, packed, os.O_RDONLY)
            assert fd >= 0, os.strerror(ctypes.get_errno())
            try:
                assert os.path.sameopenfile(fd, held)
            finally:
                os.close(fd)


def test_changes_are_told_to_who_watches(file):
    fd = libc.inotify_init1(os.O_NONBLOCK)
    try:
        wanted = IN_MODIFY | IN_ATTRIB | IN_CREATE | IN_DELETE
        assert libc.inotify_add_watch(fd, os.fsencode(file.parent), wanted) >= 0
        write(file, b"x")
        file.chmod(0o600)
        file.with_name("new").touch()
        file.unlink()
        seen = 0
        buffer = os.read(fd, 65_536)
        while buffer:
            _, mask, _, length = struct.unpack_from("=iIII", buffer)
            seen |= mask
            buffer = buffer[16 + length :]
        assert seen & wanted == wanted
    finally:
        os.close(fd)


# --- Data -----------------------------------------------------------------------------------------


def test_modes_of_fallocate(file, session):
    carried = set() if session == PYFUSE3 else FUSE_MODES
    with opened(file, os.O_RDWR) as fd:
        found = {
            mode: code_of(lambda mode=mode: fallocate(fd, mode, 4096, 8192))
            for mode in (*MODES, UNSHARE_RANGE)
        }
    assert found == {mode: "" if mode in carried else "EOPNOTSUPP" for mode in found}


def test_holes_are_told(file, session):
    os.truncate(file, 3 * SIZE)
    with opened(file) as fd:
        hole = 3 * SIZE if session == PYFUSE3 else SIZE
        assert os.lseek(fd, 0, os.SEEK_HOLE) == hole
        assert os.lseek(fd, 0, os.SEEK_DATA) == 0


def test_copy_file_range(file):
    with opened(file) as source, opened(file.with_name("new"), os.O_RDWR | os.O_CREAT) as target:
        assert os.copy_file_range(source, target, SIZE, 0, 0) == SIZE
        assert os.pread(target, 2 * SIZE, 0) == b"a" * SIZE


def test_data_is_not_shared_by_a_clone(file):
    # fs/fuse has no remap_file_range
    with opened(file) as source, opened(file.with_name("new"), os.O_RDWR | os.O_CREAT) as target:
        assert code_of(lambda: fcntl.ioctl(target, FICLONE, source)) == "EOPNOTSUPP"
    run("cp", "--reflink=auto", file, file.with_name("new"))
    assert file.with_name("new").read_bytes() == b"a" * SIZE


def test_a_shared_mapping_is_written(file):
    with opened(file, os.O_RDWR) as fd:
        with mmap.mmap(fd, SIZE) as mapping:
            mapping[5:8] = b"map"
            mapping.flush()
        assert os.pread(fd, 9, 0) == b"aaaaamapa"


def test_direct_io(file):
    with opened(file, os.O_RDWR | os.O_DIRECT) as fd, mmap.mmap(-1, 4096) as page:
        page[:] = b"d" * 4096
        assert os.pwritev(fd, [page], 4096) == 4096
        assert os.preadv(fd, [page], 0) == 4096
        assert page[:] == b"a" * 4096
    assert file.read_bytes() == b"a" * 4096 + b"d" * 4096 + b"a" * (SIZE - 8192)


# --- Locks ----------------------------------------------------------------------------------------


def test_flock(file):
    with opened(file) as one, opened(file) as other:
        fcntl.flock(one, fcntl.LOCK_EX)
        assert code_of(lambda: fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)) == "EAGAIN"


def test_locks_of_ranges(file):
    lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 5, 1, 0)
    with opened(file, os.O_RDWR) as one, opened(file, os.O_RDWR) as other:
        # a lock of the process, against one of an open file description, which is nobody's
        fcntl.lockf(one, fcntl.LOCK_EX, 10)
        assert code_of(lambda: fcntl.fcntl(other, fcntl.F_OFD_SETLK, lock)) == "EAGAIN"
        fcntl.lockf(one, fcntl.LOCK_UN, 10)
        fcntl.fcntl(other, fcntl.F_OFD_SETLK, lock)
        assert code_of(lambda: fcntl.fcntl(one, fcntl.F_OFD_SETLK, lock)) == "EAGAIN"


# --- Attributes -----------------------------------------------------------------------------------


def test_the_time_of_birth(file, session):
    with opened(file) as fd:
        assert (birth_time(fd) is None) == (session == PYFUSE3)


def test_flags_of_setxattr(file):
    assert code_of(lambda: os.setxattr(file, "user.x", b"1", XATTR_REPLACE)) == "ENODATA"
    os.setxattr(file, "user.x", b"1", XATTR_CREATE)
    assert code_of(lambda: os.setxattr(file, "user.x", b"2", XATTR_CREATE)) == "EEXIST"
    os.setxattr(file, "user.x", b"2", XATTR_REPLACE)
    assert os.getxattr(file, "user.x") == b"2"


def test_flags_of_chattr(file, session):
    if session == PYFUSE3:
        assert code_of(lambda: flags_of(file)) == "ENOTTY"
        assert code_of(lambda: set_flags(file, 0)) == "ENOTTY"
    else:
        nodump = 0x40
        set_flags(file, flags_of(file) | nodump)
        assert flags_of(file) & nodump
        assert file.read_bytes() == b"a" * SIZE


def test_other_ioctls(file):
    with opened(file) as fd:
        assert code_of(lambda: fcntl.ioctl(fd, 0x80045432, bytes(8))) == "ENOTTY"


@pytest.fixture
def protected(layers, request) -> Iterator[Path]:
    """Serve a file of a lower that `chattr` has protected, after another mount has seen it."""
    (layers.lowers[0] / "file").write_bytes(b"lower")
    try:
        with served(layers) as mnt:
            set_flags(mnt / "file", flags_of(mnt / "file") | request.param)
        with served(layers) as mnt:
            yield mnt / "file"
    finally:
        with contextlib.suppress(OSError):
            set_flags(layers.upper / "file", 0x80000)


@pytest.mark.root
@pytest.mark.sessions(*KERNEL_SESSIONS)
class TestProtectedFiles:
    @pytest.mark.parametrize("protected", [APPEND], indirect=True)
    def test_one_that_is_append_only_is_appended_to(self, protected):
        for part in (b" and more", b", " * 4000):
            with opened(protected, os.O_WRONLY | os.O_APPEND) as fd:
                assert os.write(fd, part) == len(part)
                os.fsync(fd)
        assert protected.read_bytes() == b"lower and more" + b", " * 4000

    @pytest.mark.parametrize("protected", [APPEND], indirect=True)
    def test_one_that_is_append_only_is_changed_in_no_other_way(self, protected):
        for change in (
            lambda: change_and_sync(protected, 2),
            lambda: os.truncate(protected, 0),
            lambda: os.truncate(protected, 100),
            protected.unlink,
            lambda: protected.rename(protected.with_name("new")),
            lambda: protected.chmod(0o600),
        ):
            assert code_of(change) == "EPERM"
        assert flags_of(protected) & APPEND

    @pytest.mark.parametrize("protected", [APPEND], indirect=True)
    def test_protection_ends_when_it_is_taken_off(self, protected):
        with opened(protected, os.O_WRONLY | os.O_APPEND) as fd:
            os.write(fd, b"!")
        set_flags(protected, flags_of(protected) & ~APPEND)
        write(protected, b"L")
        assert protected.read_bytes() == b"Lower!"

    @pytest.mark.parametrize("protected", [IMMUTABLE], indirect=True)
    def test_one_that_is_immutable_is_not_changed(self, protected):
        for change in (
            lambda: change_and_sync(protected, 0),
            lambda: os.truncate(protected, 0),
            protected.unlink,
            lambda: protected.rename(protected.with_name("new")),
            lambda: os.link(protected, protected.with_name("new")),
            lambda: protected.chmod(0o600),
            lambda: os.utime(protected, (1, 1)),
            lambda: os.setxattr(protected, "user.x", b"1"),
        ):
            assert code_of(change) == "EPERM"

    @pytest.mark.parametrize("protected", [APPEND, IMMUTABLE], indirect=True)
    def test_it_is_told_at_open_where_opens_are_asked_for(self, protected, session):
        told = session == KERNEL_PASSTHROUGH
        assert code_of(lambda: write(protected, b"")) == ("EPERM" if told else "")

    def test_a_file_that_is_protected_while_it_is_open_is_written_no_more(self, layers, session):
        (layers.lowers[0] / "file").write_bytes(b"lower")
        with served(layers) as mnt, opened(mnt / "file", os.O_RDWR) as fd:
            os.pwrite(fd, b"L", 0)
            os.fsync(fd)
            set_flags(mnt / "file", flags_of(mnt / "file") | IMMUTABLE)
            try:
                assert code_of(lambda: (os.pwrite(fd, b"x", 0), os.fsync(fd))) == "EPERM"
                assert (layers.upper / "file").read_bytes() == b"Lower"
            finally:
                set_flags(mnt / "file", 0x80000)


def change_and_sync(path: Path, offset: int) -> None:
    """Write into a file; where the kernel gathers writes it is told at the fsync."""
    with opened(path, os.O_WRONLY) as fd:
        os.pwrite(fd, b"x", offset)
        os.fsync(fd)
