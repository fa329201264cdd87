import os
from pathlib import Path

import pytest

from unionfuse.container.errors import ContainerError, NoSuchContainer
from unionfuse.container.finish import recover
from unionfuse.container.options import RunOptions
from unionfuse.container.processes import Process, identify
from unionfuse.container.state import EXITED, RUNNING, Container, Containers, Record, State
from unionfuse.image.config import RunConfig


def add(containers: Containers, name: str, *, digit: str = "a", remove: bool = False) -> Container:
    container_id = digit * 64
    record = Record(
        id=container_id,
        name=name,
        image="image",
        image_id="sha256:0",
        manifest="sha256:1",
        created=int(digit, 16),
        hostname="h",
        lowers=(),
        config=RunConfig(),
        options=RunOptions(remove=remove),
    )
    with containers.making(container_id) as path:
        (path / "upper").mkdir()
        return containers.add(path, record)


@pytest.fixture
def containers(tmp_path: Path) -> Containers:
    return Containers(tmp_path)


def test_a_container_is_found_by_its_name_and_the_beginning_of_its_id(
    containers: Containers,
) -> None:
    made = add(containers, "box")
    for text in ("box", "a", "a" * 12, "a" * 64):
        assert containers.find(text).record == made.record


@pytest.mark.parametrize("text", ["", "other", "..", "names", "a/b", "b", "../containers"])
def test_what_is_no_container_is_said_so(containers: Containers, text: str) -> None:
    add(containers, "box")
    with pytest.raises(NoSuchContainer):
        containers.find(text)


def test_an_id_that_is_not_long_enough_is_refused(containers: Containers) -> None:
    add(containers, "one", digit="a")
    other = add(containers, "two", digit="b")
    other.path.rename(other.path.with_name("a" * 63 + "b"))
    with pytest.raises(ContainerError, match="2 ids"):
        containers.find("aa")


def test_a_name_can_be_given_once(containers: Containers) -> None:
    add(containers, "box")
    with pytest.raises(ContainerError, match="taken"):
        add(containers, "box", digit="b")
    assert [container.id[0] for container in containers.all()] == ["a"]


def test_a_name_that_leads_nowhere_is_free(containers: Containers) -> None:
    made = add(containers, "box")
    made.path.rename(made.path.with_name("gone"))
    assert add(containers, "box", digit="b").id[0] == "b"


def test_containers_are_listed_the_newest_first(containers: Containers) -> None:
    add(containers, "old", digit="1")
    add(containers, "new", digit="2")
    assert [container.record.name for container in containers.all()] == ["new", "old"]


def test_what_failed_to_be_made_is_not_left(containers: Containers) -> None:
    with pytest.raises(RuntimeError), containers.making("c" * 64):
        raise RuntimeError
    assert not [name for name in os.listdir(containers.path) if name.startswith(".new")]


def test_what_a_killed_command_left_is_swept(containers: Containers) -> None:
    with containers.making("c" * 64) as path:
        assert containers.sweep() == 0, "somebody is at work on it"
    assert containers.sweep() == 1
    assert not path.exists()


def test_a_removed_container_is_gone_with_its_name(containers: Containers) -> None:
    made = add(containers, "box")
    closed = made.upper / "closed"
    closed.mkdir()
    (closed / "file").touch()
    closed.chmod(0)
    with made.lock():
        containers.remove(made)
    assert sorted(os.listdir(containers.path)) == ["names"]
    with pytest.raises(NoSuchContainer):
        made.state()


def test_a_container_whose_processes_live_is_running(containers: Containers) -> None:
    made = add(containers, "box")
    here = identify(os.getpid())
    state = State(status=RUNNING, daemon=here, conmon=here, init=here)
    made.save(state)
    assert recover(containers, made) == state


def test_a_container_of_an_earlier_boot_has_ended(containers: Containers) -> None:
    made = add(containers, "box")
    before = Process(os.getpid(), identify(os.getpid()).started, "another boot")  # type: ignore[union-attr] # it lives
    made.save(State(status=RUNNING, daemon=before, conmon=before, init=before))
    state = recover(containers, made)
    assert (state.status, state.exit_code) == (EXITED, 137)
    assert state.error
    assert made.state() == state


def test_the_exit_code_that_conmon_has_left_counts(containers: Containers) -> None:
    made = add(containers, "box")
    made.exit_file.parent.mkdir()
    made.exit_file.write_text("3")
    made.save(State(status=RUNNING))
    state = recover(containers, made)
    assert (state.status, state.exit_code, state.error) == (EXITED, 3, "")


def test_a_container_to_be_removed_is_when_it_is_found_ended(containers: Containers) -> None:
    made = add(containers, "box", remove=True)
    made.save(State(status=RUNNING))
    recover(containers, made)
    assert containers.all() == []


def test_a_record_that_is_damaged_is_said_to_be(containers: Containers) -> None:
    made = add(containers, "box")
    (made.path / "container.json").write_text("{")
    with pytest.raises(ContainerError, match="damaged"):
        containers.find("box")


def test_a_state_that_was_cut_is_that_of_one_that_has_ended(containers: Containers) -> None:
    made = add(containers, "box")
    (made.path / "state.json").write_text("")
    assert (made.state().status, made.state().exit_code) == (EXITED, 137)
