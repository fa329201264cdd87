"""File handles in the kernel's form."""

from __future__ import annotations

import pytest

from unionfuse.layer.handle import FileHandle, is_malformed, parse

HANDLE = FileHandle(1, b"12345678", b"u" * 16)


def test_a_handle_that_was_packed_is_parsed_to_the_same() -> None:
    assert parse(HANDLE.pack()) == HANDLE
    assert HANDLE.pack()[:5] == bytes([0, 0xFB, 29, 0, 1])


@pytest.mark.parametrize(
    "value",
    [b"x", b"\0" * 29, HANDLE.pack()[:21], HANDLE.pack()[:-1], HANDLE.pack() + b"x"],
)
def test_what_the_kernel_can_not_have_written_is_malformed(value: bytes) -> None:
    assert is_malformed(value)


def test_an_empty_value_says_that_the_origin_is_unknown() -> None:
    assert not is_malformed(b"")
    assert parse(b"") is None


def test_a_version_of_the_future_is_not_understood_and_not_malformed() -> None:
    value = b"\1" + HANDLE.pack()[1:]
    assert parse(value) is None
    assert not is_malformed(value)
