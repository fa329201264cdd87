"""Which mount the kernel is told to read further ahead on."""

from __future__ import annotations

import os

import pytest

from unionfuse.fuse.kernel.readahead import _device, _escape


def test_a_mount_is_found_by_its_path() -> None:
    st = os.stat("/proc")
    assert _device(b"/proc") == f"{os.major(st.st_dev)}:{os.minor(st.st_dev)}"


def test_what_is_no_mount_has_no_device() -> None:
    assert _device(b"/proc/self") is None


@pytest.mark.parametrize(
    ("path", "escaped"), [(b"/a b", rb"/a\040b"), (b"/a\\b\n", rb"/a\134b\012"), (b"/ab", b"/ab")]
)
def test_a_path_is_looked_for_as_the_table_has_it(path: bytes, escaped: bytes) -> None:
    assert _escape(path) == escaped
