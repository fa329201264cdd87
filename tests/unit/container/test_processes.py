import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.commands import wait_until
from unionfuse.container import processes
from unionfuse.container.processes import Process


@pytest.fixture
def sleeper() -> Iterator[int]:
    command = ["sh", "-c", "sleep 60; true", "sh", "the-word"]
    with subprocess.Popen(command, start_new_session=True) as child:
        # exec(2) closes the pipe that Popen waits for before there is a command line to be seen
        wait_until(Path(f"/proc/{child.pid}/cmdline").read_bytes)
        yield child.pid
        os.killpg(child.pid, signal.SIGKILL)


def found(pid: int) -> Process:
    process = processes.identify(pid)
    assert process is not None
    return process


def test_a_process_is_told_from_another_that_has_its_pid(sleeper: int) -> None:
    process = found(sleeper)
    assert processes.is_alive(process)
    for other in (
        Process(process.pid, process.started + 1, process.boot),
        Process(process.pid, process.started, "another boot"),
        None,
    ):
        assert not processes.is_alive(other)
        assert not processes.send(other, 9)
        assert processes.wait(other, 0)
    assert processes.is_alive(process)


def test_a_process_that_is_asked_to_end_is_waited_for(sleeper: int) -> None:
    process = found(sleeper)
    assert not processes.wait(process, 0)
    processes.end(process, 5)
    assert not processes.is_alive(process)


def test_a_file_names_the_process_that_was_there_when_it_was_written(
    sleeper: int, tmp_path: Path
) -> None:
    file = tmp_path / "pid"
    assert processes.from_file(file) is None
    file.write_text(str(sleeper))
    assert processes.from_file(file) == found(sleeper)
    before = time.time() - 3600
    os.utime(file, (before, before))
    assert processes.from_file(file) is None, "it began after the file was written"


def test_processes_are_found_by_an_argument_and_by_their_parent(sleeper: int) -> None:
    assert found(sleeper) in processes.naming("sh", "the-word")
    assert processes.naming("sh", "the-wor") == []
    assert processes.naming("conmon", "the-word") == []
    deadline = time.monotonic() + 5
    while not processes.children(found(sleeper)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
