"""What holds for every test: what it may need, how long it may take, what it may leave behind."""

import ctypes
import gc
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# `ci` tries the same examples in every run, so that a change is judged by nothing but itself.
settings.register_profile("dev", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.register_profile("nightly", deadline=None, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))

# Otherwise grpc opens descriptors in each process that forks, once it was loaded, and keeps them.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

# A test has this long between the freeing of its mounts and its own end by timeout.
GRACE = 10.0
MNT_FORCE, MNT_DETACH = 1, 2


def lacks_user_namespaces() -> bool:
    """Say whether an unprivileged process cannot make a user namespace here."""
    command = ["unshare", "--user", "--map-root-user", "--mount", "true"]
    return subprocess.run(command, capture_output=True, timeout=10).returncode != 0


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip the tests that this machine cannot run; with UNIONFUSE_TEST_NO_SKIPS let them fail.

    Those that take minutes are run with UNIONFUSE_TEST_LONG alone.
    """
    if not os.environ.get("UNIONFUSE_TEST_LONG"):
        left_out = [item for item in items if item.get_closest_marker("long")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    if os.environ.get("UNIONFUSE_TEST_NO_SKIPS"):
        return
    lacking = {
        "fuse": "" if os.path.exists("/dev/fuse") else "there is no /dev/fuse",
        "root": "" if os.geteuid() == 0 else "only root has CAP_SYS_ADMIN",
        "userns": "user namespaces are turned off" if lacks_user_namespaces() else "",
    }
    for item in items:
        for marker, cause in lacking.items():
            if cause and item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=cause))


def mounts_below(*bases: Path) -> list[str]:
    """List the mountpoints below `bases`, the innermost first."""
    with open("/proc/self/mountinfo", errors="surrogateescape") as mountinfo:
        fields = [line.split()[4] for line in mountinfo]
    points = [re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), field) for field in fields]
    return [point for point in reversed(points) if any(map(Path(point).is_relative_to, bases))]


def free_mounts(*bases: Path) -> list[str]:
    """Unmount all below `bases`, and say what there was.

    The forced unmount ends every request that waits for an answer from a FUSE daemon: a process
    that waits for one cannot be killed before that.
    """
    libc = ctypes.CDLL(None)
    freed = mounts_below(*bases)
    for point in freed:
        path = os.fsencode(point)
        libc.umount2(path, MNT_FORCE)
        if libc.umount2(path, MNT_DETACH) != 0:
            command = ["fusermount3", "-u", "-z", point]
            subprocess.run(command, capture_output=True, timeout=10, check=False)
    return freed


@pytest.fixture(scope="session", autouse=True)
def public_temporary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Let `tempfile` work in a directory of this run that every user may enter.

    pytest's own `tmp_path` is for this user alone.
    """
    tmp_path_factory.getbasetemp()  # is made now, not in that directory
    path = Path(tempfile.mkdtemp(prefix="unionfuse-tests."))
    path.chmod(0o755)
    before, tempfile.tempdir = tempfile.tempdir, str(path)
    yield path
    tempfile.tempdir = before
    shutil.rmtree(path)


@pytest.fixture(autouse=True)
def _no_mount_outlives_its_test(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    public_temporary: Path,
) -> Iterator[None]:
    if not any(request.node.get_closest_marker(marker) for marker in ("fuse", "root")):
        yield
        return
    bases = (tmp_path_factory.getbasetemp(), public_temporary)
    marker = request.node.get_closest_marker("timeout")
    limit = float(marker.args[0] if marker else request.config.getini("timeout"))
    # pytest-timeout cannot end a test that waits for a hung mount; this makes the mount let go
    watchdog = threading.Timer(limit - GRACE, free_mounts, bases)
    watchdog.daemon = True
    watchdog.start()
    yield
    watchdog.cancel()
    watchdog.join()
    left = free_mounts(*bases)
    assert not left, f"the test left mounts behind: {left}"


@pytest.fixture(scope="session", autouse=True)
def _kernel_forgets() -> Iterator[None]:
    """With UNIONFUSE_TEST_DROP_CACHES=SECONDS, let the kernel drop its caches that often.

    It then forgets nodes in the midst of every test, and a filesystem that needs them to be
    remembered answers wrongly.
    """
    interval = float(os.environ.get("UNIONFUSE_TEST_DROP_CACHES", "0"))
    if not interval:
        yield
        return
    done = threading.Event()
    # open from the first test to the last, so that no test is blamed for it
    with open("/proc/sys/vm/drop_caches", "wb", buffering=0) as caches:

        def drop() -> None:
            while not done.wait(interval):
                os.pwrite(caches.fileno(), b"3", 0)

        thread = threading.Thread(target=drop, name="drop caches", daemon=True)
        thread.start()
        yield
        done.set()
        thread.join()


def open_files() -> dict[int, str]:
    """Map this process's file descriptors to what they are open on."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue  # the one that listed the directory
    return found


@pytest.fixture(autouse=True)
def _no_file_stays_open() -> Iterator[None]:
    before = open_files()
    yield
    if open_files().items() - before.items():
        gc.collect()
    left = dict(open_files().items() - before.items())
    assert not left, f"the test left file descriptors open: {left}"
