"""The system's log is connected to when there is something to say, and may be missing."""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

from unionfuse.fuse import logs

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

HEAVY = {"trio", "socket", "subprocess", "json", "pathlib", "shutil", "logging.handlers"}
RECORD = logging.LogRecord("name", logging.WARNING, "file", 1, "what %s", ("happens",), None)


def test_records_reach_the_systems_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_SYSLOG", str(tmp_path / "log"))
    handler = logs.SystemLog()
    handler.setFormatter(logging.Formatter("unionfuse: %(message)s"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as system:
        system.bind(str(tmp_path / "log"))
        system.settimeout(10)
        handler.handle(RECORD)
        handler.handle(RECORD)
        for _ in range(2):
            assert b"unionfuse: what happens" in system.recv(1000)
    handler.close()


def test_without_a_systems_log_nothing_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logs, "_SYSLOG", str(tmp_path / "missing"))
    logs.SystemLog().handle(RECORD)
    assert capsys.readouterr() == ("", "")


def test_a_daemon_that_says_nothing_does_not_load_what_speaks_to_it() -> None:
    script = (
        "import sys\n"
        "from unionfuse.fuse import daemon, logs, table\n"
        f"print(sorted({HEAVY!r} & set(sys.modules)))\n"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"
