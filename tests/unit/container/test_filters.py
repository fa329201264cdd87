"""A seccomp filter is used again as long as what it was made with is there."""

from __future__ import annotations

import base64
import os
from typing import TYPE_CHECKING

import pytest

from unionfuse.container import filters
from unionfuse.container.runtime import Runtime

if TYPE_CHECKING:
    from pathlib import Path

FILTER = bytes(range(16))
PROFILE = b'{"defaultAction":"x"}'


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    """A crun that has left a filter beside its state of container `id`."""
    program = tmp_path / "crun"
    program.write_text("a program")
    (tmp_path / "run/id").mkdir(parents=True)
    (tmp_path / "run/id/seccomp.bpf").write_bytes(FILTER)
    return Runtime(str(program), tmp_path / "run")


def test_what_was_kept_is_found(tmp_path: Path, runtime: Runtime) -> None:
    filters.keep(tmp_path, runtime, "id", PROFILE)
    found = filters.recall(tmp_path, runtime)
    assert found == (PROFILE, base64.b64encode(FILTER).decode())


def test_nothing_is_found_where_nothing_was_kept(tmp_path: Path, runtime: Runtime) -> None:
    assert filters.recall(tmp_path, runtime) is None


def test_another_program_gets_a_filter_of_its_own(tmp_path: Path, runtime: Runtime) -> None:
    filters.keep(tmp_path, runtime, "id", PROFILE)
    with open(runtime.path, "a") as program:
        program.write(", updated")
    assert filters.recall(tmp_path, runtime) is None


def test_another_profile_gets_a_filter_of_its_own(
    tmp_path: Path, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = tmp_path / "seccomp.json"
    monkeypatch.setattr(filters, "PROFILES", (str(profile),))
    filters.keep(tmp_path, runtime, "id", PROFILE)
    assert filters.recall(tmp_path, runtime) is not None
    profile.write_text("{}")
    assert filters.recall(tmp_path, runtime) is None


@pytest.mark.parametrize("data", [b"", b"not eight"])
def test_what_is_no_filter_is_not_kept(tmp_path: Path, runtime: Runtime, data: bytes) -> None:
    (runtime.root / "id/seccomp.bpf").write_bytes(data)
    filters.keep(tmp_path, runtime, "id", PROFILE)
    assert filters.recall(tmp_path, runtime) is None


def test_a_file_that_is_cut_is_made_anew(tmp_path: Path, runtime: Runtime) -> None:
    filters.keep(tmp_path, runtime, "id", PROFILE)
    os.truncate(tmp_path / "seccomp", 20)
    assert filters.recall(tmp_path, runtime) is None
