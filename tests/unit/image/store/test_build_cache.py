from __future__ import annotations

from typing import TYPE_CHECKING

from unionfuse.image.digest import digest_of
from unionfuse.image.manifest import Descriptor
from unionfuse.image.store.build_cache import BuildCache, Record

if TYPE_CHECKING:
    from pathlib import Path

STEP = Record("2026-01-01T00:00:00Z")
LAYER = Record(
    "2026-01-01T00:00:00Z",
    Descriptor("type", digest_of(b"blob"), 4),
    digest_of(b"diff"),
    digest_of(b"chain"),
)


def test_what_was_noted_is_found(tmp_path: Path) -> None:
    cache = BuildCache(tmp_path)
    assert cache.get("a") is None
    assert list(cache.records()) == []
    cache.put("a", STEP)
    cache.put("b", LAYER)
    assert cache.get("a") == STEP
    assert BuildCache(tmp_path).get("b") == LAYER
    assert len(list(cache.records())) == 2


def test_a_damaged_record_is_none(tmp_path: Path) -> None:
    cache = BuildCache(tmp_path)
    cache.put("a", STEP)
    (cache.path / "a").write_bytes(b"")
    assert cache.get("a") is None
    assert list(cache.records()) == []


def test_it_can_be_emptied(tmp_path: Path) -> None:
    cache = BuildCache(tmp_path)
    cache.clear()
    cache.put("a", STEP)
    cache.clear()
    assert cache.get("a") is None
