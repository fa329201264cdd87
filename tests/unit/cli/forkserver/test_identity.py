"""Two processes that may do, see and use the same are the same."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from unionfuse.cli.forkserver import identity

READY = "import sys; print(flush=True); sys.stdin.read()"


def identity_of(*prefix: str, before: str = "") -> str:
    """Return what a process is that was started by `prefix`."""
    with subprocess.Popen(
        [*prefix, sys.executable, "-c", f"{before}\n{READY}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout
        process.stdout.readline()
        return identity.of_process(process.pid)


def test_a_process_is_as_another_one() -> None:
    assert identity_of() == identity_of()


@pytest.mark.parametrize(
    "before",
    [
        "import os; os.umask(0o077)",
        "import os; os.nice(1)",
        "import resource as r; r.setrlimit(r.RLIMIT_NOFILE, (100, 100))",
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)",
        "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])",
        "open('/proc/self/oom_score_adj', 'w').write('500')",
        "import ctypes; ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)",  # no new privileges
    ],
)
def test_one_that_may_other_things_is_not(before: str) -> None:
    assert identity_of(before=before) != identity_of()


@pytest.mark.userns
@pytest.mark.parametrize("kind", ["--mount", "--uts", "--ipc", "--net", "--cgroup"])
def test_one_that_sees_other_things_is_not(kind: str) -> None:
    assert identity_of("unshare", "--user", "--map-root-user", kind) != identity_of(
        "unshare", "--user", "--map-root-user"
    )


def test_one_of_another_root_is_not(tmp_path) -> None:
    if os.geteuid():
        pytest.skip("only root may change its root directory")
    plain = identity_of(before="import os; os.chdir('/')")
    assert plain != identity_of(before=f"import os; os.chroot({str(tmp_path)!r})")


def test_one_that_is_gone_is_none() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    with pytest.raises(OSError):  # noqa: PT011 - ENOENT or ESRCH
        identity.of_process(process.pid)


@pytest.mark.parametrize("name", ["PYTHONPATH", "LANG", "LC_ALL"])
def test_an_interpreter_is_what_its_environment_made_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = identity.of_program()
    monkeypatch.setenv("OTHER", "x")
    assert identity.of_program() == before
    monkeypatch.setenv(name, "x")
    assert identity.of_program() != before
