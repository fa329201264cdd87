"""A session answers before and while trio is imported, and goes on with it."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest
import trio

from unionfuse.fuse import serving, signals
from unionfuse.fuse.errors import MountError

if TYPE_CHECKING:
    from collections.abc import Iterator

TIMEOUT = 10


class Recorded:
    """A session that needs trio."""

    name = "recorded"

    def __init__(self, problem: Exception | None = None) -> None:
        self.steps: list[str] = []
        self.problem = problem

    async def serve(self) -> None:
        self.steps.append("serve")
        if self.problem:
            raise self.problem

    def stop(self) -> None:
        self.steps.append("stop")

    def close(self) -> None:
        self.steps.append("close")

    def statistics(self) -> str:
        return "none"


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    interval, limits = sys.getswitchinterval(), gc.get_threshold()
    mask = serving.signal.pthread_sigmask(serving.signal.SIG_BLOCK, ())
    yield
    serving.signal.pthread_sigmask(serving.signal.SIG_SETMASK, mask)
    gc.unfreeze()
    assert (sys.getswitchinterval(), gc.get_threshold()) == (interval, limits)


def run(statements: str) -> list[str]:
    """Run `statements` in an interpreter that has not imported trio; return the lines printed."""
    script = f"""
import select, sys, time
from unionfuse.fuse import serving, signals
assert "trio" not in sys.modules
class Session:
    name = "inline"
    def serve_alone(self, quiet, most):
        print("alone")
        return True
    def serve_until(self, ready_fd):
        assert select.select([ready_fd], [], [], {TIMEOUT})[0]
        print("until")
    async def serve(self): print("served", "trio" in sys.modules)
    def stop(self): pass
    def close(self): pass
    def statistics(self): return ""
{statements}
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.splitlines()


def test_an_inline_session_serves_before_trio_does() -> None:
    assert run("serving.serve(Session(), b'/')") == ["alone", "until", "served True"]


def test_a_mount_that_is_gone_by_then_never_imports_trio() -> None:
    said = run(
        """
Session.serve_alone = lambda self, quiet, most: False
serving.serve(Session(), b"/")
print("trio" in sys.modules)
"""
    )
    assert said == ["False"]


def test_where_trio_is_there_it_serves_from_the_beginning() -> None:
    said = run("import trio; serving.serve(Session(), b'/')")
    assert said == ["served True"]


def test_any_other_is_served_by_trio_alone() -> None:
    session = Recorded()
    serving.serve(session, b"/")
    assert session.steps == ["serve"]


def test_no_descriptor_is_left_open() -> None:
    before = os.listdir("/proc/self/fd")
    serving.serve(Recorded(), b"/")
    assert os.listdir("/proc/self/fd") == before


def test_no_descriptor_of_the_import_is_left_open() -> None:
    said = run(
        """
import os
before = os.listdir("/proc/self/fd")
serving.serve(Session(), b"/")
print(os.listdir("/proc/self/fd") == before)
"""
    )
    assert said[-1] == "True"


def test_the_garbage_collector_works_but_not_on_what_was_there() -> None:
    gc.disable()
    serving.serve(Recorded(), b"/")
    assert gc.isenabled()
    assert gc.get_freeze_count() > 1000


def test_what_a_session_can_not_serve_is_told_as_it_is() -> None:
    with pytest.raises(MountError, match=r"^too old$"):
        serving.serve(Recorded(MountError("too old")), b"/")


def test_any_other_exception_of_a_session_is_not_hidden() -> None:
    with pytest.raises(BaseExceptionGroup) as caught:
        serving.serve(Recorded(ZeroDivisionError("on purpose")), b"/")
    assert caught.group_contains(ZeroDivisionError)


def test_the_session_answers_while_a_slow_import_goes_on() -> None:
    said = run(
        """
class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "trio":
            print("import begins", flush=True)
            time.sleep(0.5)
            print("import goes on", flush=True)
sys.meta_path.insert(0, Slow())
def serve_until(self, ready_fd):
    time.sleep(0.2)
    print("answered", flush=True)
    select.select([ready_fd], [], [], 10)
Session.serve_until = serve_until
serving.serve(Session(), b"/")
"""
    )
    assert said == ["alone", "import begins", "answered", "import goes on", "served True"]


def test_an_import_that_fails_ends_the_serving() -> None:
    said = run(
        """
sys.meta_path.insert(0, type("None", (), {"find_spec": lambda *_: 1 / 0})())
try:
    serving.serve(Session(), b"/")
except ZeroDivisionError:
    print("failed")
"""
    )
    assert said == ["alone", "until", "failed"]


def test_a_signal_that_was_held_is_obeyed_when_it_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    class Waiting(Recorded):
        async def serve(self) -> None:
            self.stopped = trio.Event()
            with trio.fail_after(TIMEOUT):
                await self.stopped.wait()

        def stop(self) -> None:
            super().stop()
            self.stopped.set()

    monkeypatch.setattr(serving, "_unmount", lambda mountpoint: False)
    signals.hold()
    # to this thread alone: those that the tests have were not told to hold it
    serving.signal.pthread_kill(threading.get_ident(), serving.signal.SIGTERM)
    session = Waiting()
    serving.serve(session, b"/")
    assert session.steps == ["stop"]
