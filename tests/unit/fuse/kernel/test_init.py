"""INIT: what is agreed on, for every kernel from 5.4 on."""

from __future__ import annotations

import pytest

from unionfuse.fuse.errors import MountError
from unionfuse.fuse.kernel import init, wire
from unionfuse.fuse.kernel.init import (
    CACHED,
    MAX_WRITE,
    PASSTHROUGH,
    TooOldError,
    choose_io,
    negotiate,
)
from unionfuse.fuse.options import MountPlan
from unionfuse.fuse.words import parse_options

NEEDED = wire.NO_OPEN_SUPPORT | wire.NO_OPENDIR_SUPPORT | wire.BIG_WRITES
ALL = (1 << 64) - 1
LOW = (1 << 32) - 1


def init_in(minor: int, flags: int) -> bytes:
    """Return the body of INIT as kernels of that version send it."""
    body = wire.INIT_IN.pack(wire.MAJOR, minor, 1 << 17, flags & LOW, flags >> 32)
    return body.ljust(64, b"\0") if minor >= 36 else body[:16]


def fields(minor: int, flags: int, io: str) -> dict[str, int]:
    agreement, reply = negotiate(init_in(minor, flags), io)
    _, _, _, low, _, _, max_write, gran, max_pages, _, high, depth = wire.INIT_OUT.unpack(reply)
    assert agreement.flags == low | high << 32
    return {
        "flags": low | high << 32,
        "max_write": max_write,
        "time_gran": gran,
        "max_pages": max_pages,
        "depth": depth,
    }


def test_cached_data_has_the_write_back_cache_and_no_atomic_truncation() -> None:
    agreed = fields(45, ALL, CACHED)
    assert agreed["flags"] & wire.WRITEBACK_CACHE
    assert not agreed["flags"] & (wire.ATOMIC_O_TRUNC | wire.PASSTHROUGH)
    assert agreed["depth"] == 0


def test_passthrough_excludes_the_write_back_cache() -> None:
    agreed = fields(45, ALL, PASSTHROUGH)
    assert agreed["flags"] & wire.PASSTHROUGH
    assert agreed["flags"] & wire.ATOMIC_O_TRUNC
    assert not agreed["flags"] & wire.WRITEBACK_CACHE
    assert agreed["depth"] == 1


def test_a_kernel_without_passthrough_gets_cached_data() -> None:
    agreement, _ = negotiate(init_in(39, ALL & ~wire.PASSTHROUGH), PASSTHROUGH)
    assert agreement.io == CACHED
    assert agreement.has(wire.WRITEBACK_CACHE)


def test_the_request_of_an_old_kernel_is_short() -> None:
    agreed = fields(31, ALL & LOW & ~wire.INIT_EXT, PASSTHROUGH)
    assert agreed["flags"] >> 32 == 0
    assert not agreed["flags"] & wire.INIT_EXT


def test_flags2_count_only_with_init_ext() -> None:
    agreement, _ = negotiate(init_in(45, ALL & ~wire.INIT_EXT), PASSTHROUGH)
    assert agreement.io == CACHED


def test_writes_of_one_mebibyte_and_times_to_the_nanosecond() -> None:
    agreed = fields(45, ALL, CACHED)
    assert agreed["max_write"] == MAX_WRITE == agreed["max_pages"] * 4096
    assert agreed["time_gran"] == 1


@pytest.mark.parametrize("missing", [wire.NO_OPEN_SUPPORT, wire.NO_OPENDIR_SUPPORT])
def test_a_kernel_without_zero_message_opens_is_too_old(missing: int) -> None:
    with pytest.raises(TooOldError, match=r"FUSE 7\.45"):
        negotiate(init_in(45, ALL & ~missing), CACHED)


def test_what_was_agreed_can_be_read() -> None:
    agreement, _ = negotiate(init_in(45, NEEDED | wire.INIT_EXT | wire.PASSTHROUGH), PASSTHROUGH)
    assert str(agreement) == (
        "FUSE 7.45, passthrough data, BIG_WRITES NO_OPEN_SUPPORT NO_OPENDIR_SUPPORT INIT_EXT "
        "PASSTHROUGH"
    )


def plan(io: str, words: str = "") -> MountPlan:
    options = parse_options((words,))
    return MountPlan((), None, None, b"/nowhere", io=io, options=options)


@pytest.mark.parametrize(
    ("io", "words", "gathers"),
    [
        ("auto", "", False),
        ("auto", "writeback=1", True),
        ("cached", "", True),
        ("cached", "writeback=0", False),
    ],
)
def test_data_is_cached_and_writes_are_gathered_only_where_asked_for(
    io: str, words: str, gathers: bool
) -> None:
    decided = choose_io(plan(io, words))
    assert (decided.io, decided.options.writeback) == (CACHED, gathers)


def test_passthrough_that_can_not_be_had_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(init, "passthrough_problem", lambda: "needs another kernel")
    with pytest.raises(MountError, match="--io passthrough needs another kernel"):
        choose_io(plan("passthrough"))


def test_passthrough_is_taken_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(init, "passthrough_problem", lambda: None)
    assert choose_io(plan("passthrough")).io == PASSTHROUGH
