"""Ask whether a file was written back, without writing it."""

from __future__ import annotations

import errno
import os

import pytest

from unionfuse.syscalls.syncfs import check_written


def test_a_file_that_is_whole_is_no_error(tmp_path):
    with open(tmp_path / "file", "wb") as file:
        file.write(b"data")
        file.flush()
        check_written(file.fileno())


def test_what_is_no_file_is_an_error():
    read, write = os.pipe()
    try:
        with pytest.raises(OSError, match=os.strerror(errno.ESPIPE)):
            check_written(read)
    finally:
        os.close(read)
        os.close(write)
