from pathlib import Path

import pytest

from unionfuse.image.store import lease
from unionfuse.image.store.lease import Lease, Use, kept_uses, live_uses


def test_a_lease_that_is_swept_before_it_is_locked_is_taken_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lock").touch()
    (tmp_path / "tmp").mkdir()
    made = Path.mkdir
    swept: list[Path] = []

    def swept_at_once(path: Path, mode: int) -> None:
        made(path, mode)
        if not swept:
            path.rmdir()
            swept.append(path)

    monkeypatch.setattr(Path, "mkdir", swept_at_once)
    with Lease(tmp_path / "tmp", tmp_path / "lock") as taken:
        taken.touch(Use(lease.IMAGE, "sha256-0"))
        assert live_uses(tmp_path / "tmp") == {Use(lease.IMAGE, "sha256-0")}
    assert swept


def test_what_a_container_needs_is_kept_whether_anything_runs_or_not(tmp_path: Path) -> None:
    assert kept_uses(tmp_path / "containers") == set()
    uses = tmp_path / "containers" / "id" / "uses"
    uses.mkdir(parents=True)
    (uses / "image-sha256-0").touch()
    (tmp_path / "containers" / "names").mkdir()
    assert kept_uses(tmp_path / "containers") == {Use(lease.IMAGE, "sha256-0")}
