"""What is known of containers, on disk: `containers/` of the store.

    ID/container.json    what the container is; does not change
    ID/state.json        what it is doing, replaced as a whole at each change
    ID/lock              held (flock) by who changes the state, or the container
    ID/upper/ work/      what the container has written
    ID/init/ volumes/    see `init_layer`; the image's Volumes
    ID/merged/           where the root filesystem is mounted while it is in use
    ID/config.json       of the bundle, which ID/ is
    ID/*.pid pidfile     of the mount's daemon, of conmon, of the first process
    ID/run/              the runtime's own state, made anew at each start
    ID/log exit/         written by conmon
    ID/uses/             names of what the container needs of the store, as leases have them
    names/NAME           a symlink to ../ID
    .new-ID/             a container that is being made

The state says what was; whether that still is shows in whether its processes live. A container
whose conmon was killed, or whose machine went down, is found so by the next command.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import msgspec

from unionfuse.container import names
from unionfuse.container.errors import ContainerError, NoSuchContainer
from unionfuse.container.options import Bind, RunOptions
from unionfuse.container.processes import Process
from unionfuse.image.config import RunConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

CREATED, RUNNING, EXITED = "created", "running", "exited"
LOST = 137  # what one has ended with that nobody saw end: 128 + SIGKILL, as shells have it
_NEW = ".new-"
_NAMES = "names"


class Record(msgspec.Struct, frozen=True):
    """What a container is.

    Attributes:
        image: as the user named it.
        image_id: digest of the image's config.
        manifest: digest of its manifest.
        created: nanoseconds since 1970.
        lowers: the image's layers, the topmost first.
        config: how the image has a container started.
        volumes: the image's Volumes.
        override: whether owners are kept in attributes, since there is but one id.
    """

    id: str
    name: str
    image: str
    image_id: str
    manifest: str
    created: int
    hostname: str
    lowers: tuple[str, ...]
    config: RunConfig
    options: RunOptions
    volumes: tuple[Bind, ...] = ()
    override: bool = False


class State(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a container is doing.

    Attributes:
        status: created, running or exited.
        exit_code: of the last run.
        started, finished: nanoseconds since 1970; 0: never.
        error: what went wrong, for the user.
        daemon: serves the mount.
        conmon: holds the log and the terminal.
        init: the first process of the container.
    """

    status: str = CREATED
    exit_code: int = 0
    started: int = 0
    finished: int = 0
    error: str = ""
    daemon: Process | None = None
    conmon: Process | None = None
    init: Process | None = None


class PidFiles(NamedTuple):
    """Files that have a pid each, written as soon as there is the process."""

    daemon: Path
    conmon: Path
    init: Path


_T = TypeVar("_T")


class Container:
    """One container, by its directory."""

    def __init__(self, path: Path) -> None:
        """Read what the container is.

        Raises:
            NoSuchContainer: if it is not there any more.
            ContainerError: if its record can not be read.
        """
        self.path = path
        try:
            self.record = _read(path / "container.json", Record)
        except FileNotFoundError:
            raise NoSuchContainer(f"no such container: {path.name}") from None

    @property
    def id(self) -> str:
        """The id."""
        return self.record.id

    @property
    def upper(self) -> Path:
        """What the container has written."""
        return self.path / "upper"

    @property
    def workdir(self) -> Path:
        """Where that is prepared."""
        return self.path / "work"

    @property
    def init_layer(self) -> Path:
        """The layer between the image and the upper."""
        return self.path / "init"

    @property
    def merged(self) -> Path:
        """The mount."""
        return self.path / "merged"

    @property
    def log(self) -> Path:
        """What the container has said."""
        return self.path / "log"

    @property
    def exit_file(self) -> Path:
        """The exit code, once conmon knows it."""
        return self.path / "exit" / self.id

    @property
    def pid_files(self) -> PidFiles:
        """Where the pids of its helpers are, and of its first process."""
        return PidFiles(self.path / "daemon.pid", self.path / "conmon.pid", self.path / "pidfile")

    @property
    def lowers(self) -> list[Path]:
        """The read-only layers, the topmost first."""
        return [self.init_layer, *map(Path, self.record.lowers)]

    def state(self) -> State:
        """Return what was last written of what it is doing.

        Raises:
            NoSuchContainer: if it was removed meanwhile.
        """
        try:
            return _read(self.path / "state.json", State)
        except FileNotFoundError:
            if self.path.exists():
                return State()
            raise NoSuchContainer(f"no such container: {self.record.name}") from None
        except ContainerError:  # cut by a power failure, which has ended it
            return State(status=EXITED, exit_code=LOST, error="its state was lost")

    def save(self, state: State) -> None:
        """Replace the state.

        Preconditions:
            The caller has the lock.
        """
        # Not on disk before it is needed: after a power failure nothing runs, whatever it says.
        write_whole(self.path / "state.json", msgspec.json.encode(state), sync=False)

    @contextlib.contextmanager
    def lock(self, *, wait: bool = True) -> Iterator[None]:
        """Keep others from changing the container for the time of a `with` block.

        Raises:
            NoSuchContainer: if it was removed meanwhile.
            BlockingIOError: if another has the lock, and we do not `wait`.
        """
        try:
            fd = os.open(self.path / "lock", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            raise NoSuchContainer(f"no such container: {self.record.name}") from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not self.path.exists():
                raise NoSuchContainer(f"no such container: {self.record.name}")
            yield
        finally:
            os.close(fd)


class Containers:
    """All containers of a store."""

    def __init__(self, root: Path) -> None:
        """Take the containers of the store at `root`; nothing is made yet."""
        self.path = root / "containers"

    def all(self) -> list[Container]:
        """Return the containers, the newest first."""
        found = []
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(self.path):
                if len(name) == 64:
                    with contextlib.suppress(NoSuchContainer):
                        found.append(Container(self.path / name))
        return sorted(found, key=lambda container: container.record.created, reverse=True)

    def find(self, text: str) -> Container:
        """Return the container that has this name, or whose id begins so.

        Raises:
            NoSuchContainer: if there is none.
            ContainerError: if there are several.
        """
        if text and "/" not in text and text not in (".", ".."):
            with contextlib.suppress(OSError, NoSuchContainer):
                return Container(self.path / os.readlink(self.path / _NAMES / text)[3:])
            with contextlib.suppress(FileNotFoundError):
                found = [n for n in os.listdir(self.path) if len(n) == 64 and n.startswith(text)]
                if len(found) > 1:
                    raise ContainerError(f"{text} is the beginning of {len(found)} ids: give more")
                if found:
                    return Container(self.path / found[0])
        raise NoSuchContainer(f"no such container: {text}")

    @contextlib.contextmanager
    def making(self, container_id: str) -> Iterator[Path]:
        """Yield a directory to make a container in; if the body fails, it goes again."""
        for directory in (self.path, self.path / _NAMES):
            directory.mkdir(mode=0o700, exist_ok=True)
        path = self.path / f"{_NEW}{container_id}"
        path.mkdir(mode=0o700)
        fd = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield path
        except BaseException:
            remove_tree(path)
            raise
        finally:
            os.close(fd)

    def add(self, path: Path, record: Record) -> Container:
        """Give a directory of `making`, which is complete, its place and its name.

        Raises:
            ContainerError: if another container has the name.
        """
        sync = not record.options.remove
        write_whole(path / "container.json", msgspec.json.encode(record), sync=sync)
        link = self.path / _NAMES / record.name
        with self._locked():
            if link.exists():
                raise ContainerError(f"the name {record.name} is taken: {os.readlink(link)[3:15]}")
            with contextlib.suppress(FileNotFoundError):
                link.unlink()  # of one that was never finished, or not removed in full
            link.symlink_to(f"../{record.id}")
            final = self.path / record.id
            path.rename(final)
        return Container(final)

    def is_taken(self, name: str) -> bool:
        """Tell whether a container has this name."""
        return (self.path / _NAMES / name).exists()

    def remove(self, container: Container) -> None:
        """Remove a container with all that it has.

        Preconditions:
            It does not run, and the caller has its lock.
        """
        # First out of sight at once: what a crash leaves then is swept.
        gone = self.path / f"{_NEW}{container.id}"
        with self._locked():
            container.path.rename(gone)
            link = self.path / _NAMES / container.record.name
            if os.path.lexists(link) and os.readlink(link)[3:] == container.id:
                link.unlink()
        remove_tree(gone)

    def sweep(self) -> int:
        """Remove what commands that are gone have left half made; return how many that were."""
        count = 0
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(self.path):
                if name.startswith(_NEW) and _remove_if_free(self.path / name):
                    count += 1
        return count

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)


def new_name(containers: Containers) -> str:
    """Return a name that no container has."""
    for _ in range(20):
        name = names.new_name()
        if not containers.is_taken(name):
            return name
    return f"{names.new_name()}_{names.new_id()[:6]}"


def write_whole(path: Path, data: bytes, *, sync: bool) -> None:
    """Write a file so that after the end of this process it is the old one or the new one.

    With `sync` that holds after a power failure too.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        file.write(data)
        file.flush()
        if sync:
            os.fdatasync(fd)
    temporary.replace(path)


def remove_tree(path: Path) -> None:
    """Remove a directory with all that is in it, whatever modes its directories have."""
    import shutil  # with what unpacks archives: too much for a command that removes nothing

    def permit(_: object, name: str, __: object) -> None:
        for directory in (os.path.dirname(name), name):
            if os.path.isdir(directory) and not os.path.islink(directory):
                os.chmod(directory, 0o700)
        if os.path.isdir(name) and not os.path.islink(name):
            shutil.rmtree(name)
        elif os.path.lexists(name):
            os.unlink(name)

    shutil.rmtree(path, onerror=permit)


def _remove_if_free(path: Path) -> bool:
    try:
        fd = os.open(path / "lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        remove_tree(path)
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        remove_tree(path)
        return True
    finally:
        os.close(fd)


def _read(path: Path, kind: type[_T]) -> _T:
    data = path.read_bytes()
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.MsgspecError as err:
        raise ContainerError(f"{path} is damaged: {err}") from None
