"""A session answers alone, then while trio is being imported, and goes on with it."""

from __future__ import annotations

import gc
import os
import select
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


class RecordedInline(Recorded):
    """A session that can answer without trio."""

    def serve_alone(self, signal_fd: int) -> bool:
        self.steps.append("serve_alone")
        return False

    def serve_until(self, ready_fd: int) -> None:
        self.steps.append("serve_until")
        assert select.select([ready_fd], [], [], TIMEOUT)[0]


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    interval, limits = sys.getswitchinterval(), gc.get_threshold()
    mask = serving.signal.pthread_sigmask(serving.signal.SIG_BLOCK, ())
    yield
    serving.signal.pthread_sigmask(serving.signal.SIG_SETMASK, mask)
    gc.unfreeze()
    assert (sys.getswitchinterval(), gc.get_threshold()) == (interval, limits)


def test_an_inline_session_serves_before_trio_does() -> None:
    session = RecordedInline()
    serving.serve(session, b"/")
    assert session.steps == ["serve_until", "serve"]


def test_one_that_is_to_do_without_trio_goes_on_with_it_when_it_has_to() -> None:
    session = RecordedInline()
    serving.serve(session, b"/", alone=True)
    assert session.steps == ["serve_alone", "serve_until", "serve"]


def test_any_other_is_served_by_trio_alone() -> None:
    session = Recorded()
    serving.serve(session, b"/")
    assert session.steps == ["serve"]


def test_no_descriptor_is_left_open() -> None:
    before = os.listdir("/proc/self/fd")
    serving.serve(RecordedInline(), b"/")
    assert os.listdir("/proc/self/fd") == before


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
    script = """
import select, sys, time
class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "trio":
            print("import begins", flush=True)
            time.sleep(0.5)
            print("import goes on", flush=True)
sys.meta_path.insert(0, Slow())
from unionfuse.fuse import serving, signals
class Session:
    name = "slow"
    def serve_alone(self, signal_fd): raise AssertionError
    def serve_until(self, ready_fd):
        time.sleep(0.2)
        print("answered", flush=True)
        select.select([ready_fd], [], [], 10)
    async def serve(self): print("served", "trio" in sys.modules)
    def stop(self): pass
    def close(self): pass
    def statistics(self): return ""
assert "trio" not in sys.modules
serving.serve(Session(), b"/")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines() == [
        "import begins",
        "answered",
        "import goes on",
        "served True",
    ]


def test_a_session_that_is_over_before_anything_waits_never_needs_trio() -> None:
    script = """
import sys
from unionfuse.fuse import serving
class Session:
    name = "short"
    def serve_alone(self, signal_fd): return True
    def serve_until(self, ready_fd): raise AssertionError
    async def serve(self): raise AssertionError
    def stop(self): pass
    def close(self): pass
    def statistics(self): return ""
serving.serve(Session(), b"/", alone=True)
print("trio" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "False\n"


def test_a_signal_that_comes_while_a_session_serves_alone_is_obeyed_by_trio() -> None:
    script = """
import os, select, signal
from unionfuse.fuse import serving, signals
class Session:
    name = "alone"
    def serve_alone(self, signal_fd):
        os.kill(os.getpid(), signal.SIGTERM)
        return not select.select([signal_fd], [], [], 10)[0]
    def serve_until(self, ready_fd): select.select([ready_fd], [], [], 10)
    async def serve(self):
        import trio
        self.stopped = trio.Event()
        with trio.fail_after(10):
            await self.stopped.wait()
    def stop(self):
        print("stopped")
        self.stopped.set()
    def close(self): pass
    def statistics(self): return ""
serving._unmount = lambda mountpoint: False
signals.hold()
serving.serve(Session(), b"/", alone=True)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "stopped\n"


def test_an_import_that_fails_ends_the_serving() -> None:
    script = """
import select, sys
sys.modules["trio"] = None
from unionfuse.fuse import serving, signals
class Session:
    name = "broken"
    def serve_alone(self, signal_fd): raise AssertionError
    def serve_until(self, ready_fd): select.select([ready_fd], [], [], 10)
    async def serve(self): print("served")
    def stop(self): pass
    def close(self): pass
    def statistics(self): return ""
try:
    serving.serve(Session(), b"/")
except ImportError as err:
    print("ImportError")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "ImportError\n"


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
