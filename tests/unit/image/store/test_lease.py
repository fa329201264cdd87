import os
from pathlib import Path

import pytest

from unionfuse.image.store import lease
from unionfuse.image.store.lease import Lease, Use, kept_uses, live_uses


def test_a_lease_that_is_swept_before_it_is_locked_is_taken_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lock").touch()
    (tmp_path / "tmp").mkdir()
    made = lease.tempfile.mkdtemp
    swept: list[str] = []

    def swept_at_once(prefix: str, dir: Path) -> str:  # noqa: A002 - as mkdtemp has it
        path: str = made(prefix=prefix, dir=dir)
        if not swept:
            os.rmdir(path)
            swept.append(path)
        return path

    monkeypatch.setattr(lease.tempfile, "mkdtemp", swept_at_once)
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
