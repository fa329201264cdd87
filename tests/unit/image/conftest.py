from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.images import write_nothing_to_disk
from unionfuse.image.store.store import Store


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    write_nothing_to_disk(monkeypatch)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store") as opened:
        yield opened
