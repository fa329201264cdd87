"""What a user may ask of a container when it is made, and the words for it."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import msgspec

from unionfuse.container.errors import ContainerError

if TYPE_CHECKING:
    from collections.abc import Iterable

NETWORKS = ("none", "host")
_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SIZE = re.compile(r"(\d+)([bkmgt]?)b?", re.IGNORECASE)


class Bind(msgspec.Struct, frozen=True, omit_defaults=True):
    """A directory or file of the host that the container sees.

    Attributes:
        source: an absolute path, symlinks resolved by the kernel.
        target: an absolute path in the container.
    """

    source: str
    target: str
    read_only: bool = False


class Tmpfs(msgspec.Struct, frozen=True, omit_defaults=True):
    """A tmpfs in the container, with mount options as mount(8) has them."""

    target: str
    options: tuple[str, ...] = ()


class Limits(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the container may use.

    Attributes:
        memory: bytes; 0: no limit.
        cpus: how many, in parts too; 0: no limit.
        pids: processes and threads; 0: no limit.
    """

    memory: int = 0
    cpus: float = 0.0
    pids: int = 0

    def __bool__(self) -> bool:
        return bool(self.memory or self.cpus or self.pids)


class RunOptions(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a container differs from what its image says.

    Attributes:
        command: instead of the image's Cmd; empty: that.
        entrypoint: instead of the image's Entrypoint and Cmd; None: those.
        env: `NAME=VALUE`, over the image's.
        user, workdir: empty: the image's.
        network: none or host.
        tty, interactive: whether there is a terminal, and whether stdin is kept open.
        remove: whether it is removed when it ends.
        io: auto, cached or passthrough: how file data goes, as `unionfuse mount` has it.
    """

    command: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] | None = None
    env: tuple[str, ...] = ()
    user: str = ""
    workdir: str = ""
    hostname: str = ""
    network: str = "none"
    read_only: bool = False
    binds: tuple[Bind, ...] = ()
    tmpfs: tuple[Tmpfs, ...] = ()
    limits: Limits = Limits()
    tty: bool = False
    interactive: bool = False
    remove: bool = False
    io: str = "auto"


def parse_bind(text: str) -> Bind:
    """Read `SRC:DST[:ro|rw]`.

    Raises:
        ContainerError: if a path is missing, not absolute, or SRC is not there.
    """
    parts = text.split(":")
    if len(parts) not in (2, 3) or not parts[0] or not parts[1]:
        raise ContainerError(f"volume {text!r}: expected SRC:DST[:ro]")
    mode = parts[2] if len(parts) == 3 else "rw"
    if mode not in ("ro", "rw"):
        raise ContainerError(f"volume {text!r}: {mode!r} is neither ro nor rw")
    source = parts[0]
    if "/" not in source:
        raise ContainerError(f"volume {text!r}: named volumes are not supported; give ./{source}")
    source = os.path.abspath(source)
    if not os.path.exists(source):
        raise ContainerError(f"volume {text!r}: no such file or directory: {source}")
    return Bind(source, _target(parts[1], f"volume {text!r}"), mode == "ro")


def parse_tmpfs(text: str) -> Tmpfs:
    """Read `DST[:OPTION,...]`.

    Raises:
        ContainerError: if DST is not absolute.
    """
    target, _, options = text.partition(":")
    words = tuple(word for word in options.split(",") if word)
    return Tmpfs(_target(target, f"tmpfs {text!r}"), words)


def refuse_duplicates(mounts: Iterable[Bind | Tmpfs]) -> None:
    """Refuse two things on one place, of which the container would see one.

    Raises:
        ContainerError: if there are.
    """
    seen: dict[str, Bind | Tmpfs] = {}
    for mount in mounts:
        if seen.setdefault(mount.target, mount) != mount:
            raise ContainerError(f"two mounts on {mount.target}")


def parse_size(text: str) -> int:
    """Read `N[b|k|m|g|t]` as bytes.

    Raises:
        ContainerError: if it is no size, or 0.
    """
    match = _SIZE.fullmatch(text)
    if match is None or not int(match[1]):
        raise ContainerError(f"no size: {text!r}; expected a number and b, k, m or g")
    return int(match[1]) * _UNITS[match[2].lower()]


def parse_env(text: str) -> str | None:
    """Read `NAME=VALUE`, or `NAME` for the value that it has here; None if it has none.

    Raises:
        ContainerError: if there is no name.
    """
    name, assigned, _ = text.partition("=")
    if not name:
        raise ContainerError(f"no variable: {text!r}; expected NAME=VALUE or NAME")
    if assigned:
        return text
    return f"{name}={os.environ[name]}" if name in os.environ else None


def _target(path: str, what: str) -> str:
    if not path.startswith("/"):
        raise ContainerError(f"{what}: {path!r} in the container has to begin with a slash")
    normal = os.path.normpath("/" + path.lstrip("/"))
    if normal == "/":
        raise ContainerError(f"{what}: the root of the container is its image")
    return normal
