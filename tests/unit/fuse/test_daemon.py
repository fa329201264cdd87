"""The daemon chooses its session, and says why it can not begin."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from unionfuse.fuse import daemon, logs
from unionfuse.fuse.errors import MountError
from unionfuse.fuse.options import MountPlan

if TYPE_CHECKING:
    from pathlib import Path


def chosen(session: str, release: str, monkeypatch: pytest.MonkeyPatch, io: str = "auto") -> str:
    monkeypatch.setattr(daemon.os, "uname", lambda: SimpleNamespace(release=release))
    monkeypatch.setattr(daemon, "_AUTO", "kernel")
    return daemon._choose_session(MountPlan((), None, None, b"/", session=session, io=io))


@pytest.mark.parametrize(
    ("release", "session"),
    [
        ("6.18.0", "kernel"),
        ("5.4.0-190-generic", "kernel"),
        ("5.10", "kernel"),
        ("6.1-rc3", "kernel"),
        ("7.0+", "kernel"),
        ("5.3.18-default", "pyfuse3"),
        ("4.18.0-553.el8_10.x86_64", "pyfuse3"),
        ("5", "pyfuse3"),
        ("nonsense", "pyfuse3"),
    ],
)
def test_auto_is_the_kernel_session_where_the_kernel_is_new_enough(
    monkeypatch: pytest.MonkeyPatch, release: str, session: str
) -> None:
    assert chosen("auto", release, monkeypatch) == session


@pytest.mark.parametrize("session", ["kernel", "pyfuse3"])
def test_the_session_that_is_asked_for_is_used(
    monkeypatch: pytest.MonkeyPatch, session: str
) -> None:
    assert {chosen(session, release, monkeypatch) for release in ("4.4", "6.9")} == {session}


def test_passthrough_is_served_by_the_session_that_can(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen("auto", "6.9", monkeypatch, io="passthrough") == "kernel"


def test_a_log_that_can_not_be_written_is_told_before_anything_is_mounted(tmp_path: Path) -> None:
    log = os.fsencode(tmp_path / "missing" / "log")
    with pytest.raises(MountError) as caught:
        logs.configure(MountPlan((), None, None, b"/", log=log))
    assert str(caught.value) == f"log file {tmp_path}/missing/log: No such file or directory"
