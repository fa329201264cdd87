"""What is done in a child is done there alone, and its failure is heard here."""

import os
import signal

from unionfuse.container import child
from unionfuse.container.errors import ContainerError


def failure(work):
    return child.begin(work, ContainerError).failure()


def test_what_goes_well_has_no_failure(tmp_path):
    assert failure(lambda: os.chdir(tmp_path)) == ""
    assert os.getcwd() != str(tmp_path)


def test_a_known_error_is_told_by_its_text():
    def work():
        raise ContainerError("no such thing")

    assert failure(work) == "no such thing"


def test_an_error_of_the_kernel_is_told_with_its_path(tmp_path):
    missing = tmp_path / "missing"
    assert failure(lambda: os.stat(missing)) == f"{missing}: No such file or directory"
    assert failure(lambda: os.close(-1)) == "Bad file descriptor"


def test_any_other_error_is_told_by_its_kind():
    assert failure(lambda: {}["key"]) == "KeyError: 'key'"


def test_a_child_that_is_killed_has_failed():
    assert failure(lambda: os.kill(os.getpid(), signal.SIGKILL)) != ""
