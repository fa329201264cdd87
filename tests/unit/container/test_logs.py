"""What a container has said is read from its log, also while conmon writes it and replaces it."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.container.test_state import add
from unionfuse.container.logs import Line, last, lines, parse
from unionfuse.container.processes import identify
from unionfuse.container.state import EXITED, RUNNING, Container, Containers, State

pytestmark = pytest.mark.timeout(20)


def entry(text: str, tag: str = "F") -> str:
    return f"2026-01-01T00:00:00.{text.encode().hex()}Z stdout {tag} {text}\n"


def write(container: Container, *texts: str) -> None:
    with container.log.open("a") as file:
        file.writelines(map(entry, texts))


def replace(container: Container, *texts: str) -> None:
    """Begin the log anew, as conmon does."""
    new = container.log.with_suffix(".tmp")
    new.write_text("".join(map(entry, texts)))
    new.rename(container.log)


def end(container: Container) -> None:
    container.save(State(status=EXITED))


def said(found: Iterator[Line], count: int) -> list[str]:
    return [next(found).text.decode().rstrip("\n") for _ in range(count)]


@pytest.fixture
def running(tmp_path: Path) -> Container:
    made = add(Containers(tmp_path), "box")
    made.save(State(status=RUNNING, conmon=identify(os.getpid())))
    return made


def test_a_line_has_its_time_its_stream_and_its_text() -> None:
    assert parse(b"T stderr F a b") == Line(b"T", "stderr", b"a b\n")
    assert parse(b"T stdout P a") == Line(b"T", "stdout", b"a")
    assert parse(b"T other F a") is None


def test_the_last_lines_are_whole() -> None:
    found = [Line(b"", "stdout", text) for text in (b"a\n", b"b", b"b\n", b"c\n")]
    assert last(iter(found), 2) == found[1:]


def test_a_follower_waits_for_what_comes_until_the_end(running: Container) -> None:
    write(running, "a")
    found = lines(running, follow=True)
    assert said(found, 1) == ["a"]
    write(running, "b")
    assert said(found, 1) == ["b"]
    end(running)
    assert list(found) == []


def test_a_follower_finishes_a_replaced_log_and_goes_on_with_the_new_one(
    running: Container,
) -> None:
    write(running, "a", "b")
    found = lines(running, follow=True)
    assert said(found, 2) == ["a", "b"]
    write(running, "c")
    replace(running, "d")
    assert said(found, 2) == ["c", "d"]
    replace(running, "a longer one than that before")
    assert said(found, 1) == ["a longer one than that before"]
    write(running, "e")
    assert said(found, 1) == ["e"]
    replace(running, "f")
    end(running)
    assert said(found, 1) == ["f"]
    assert list(found) == []


def test_a_follower_from_the_last_line_on_goes_on_with_a_new_log(running: Container) -> None:
    write(running, "a", "b")
    found = lines(running, count=1, follow=True)
    assert said(found, 1) == ["b"]
    replace(running, "c", "d")
    assert said(found, 2) == ["c", "d"]


def test_a_follower_from_no_line_on_shows_what_comes_alone(running: Container) -> None:
    write(running, "a")
    found = lines(running, count=0, follow=True)
    threading.Timer(0.3, write, (running, "b")).start()
    assert said(found, 1) == ["b"]
