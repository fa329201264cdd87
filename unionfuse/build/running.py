"""RUN: one process in a container of the image so far, by the OCI runtime.

Its root is the tree that is changed. etc/hosts, etc/hostname and etc/resolv.conf are those of the
container: what a step does to them is no part of the image, as with docker.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from unionfuse.build.errors import BuildError
from unionfuse.container import bundle, init_layer, start, users
from unionfuse.container import runtime as oci
from unionfuse.container.options import Bind, RunOptions
from unionfuse.image.config import RunConfig

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from unionfuse.build.layering import Change

HOSTNAME = "build"
_SIGNALLED = 128
_PIPES = "/dev/pipes"  # where BuildKit shows scripts


@dataclass(frozen=True, slots=True)
class Command:
    """What is run.

    Attributes:
        arguments: the program and what it is given.
        script: instead of them: a file that names its own interpreter.
        env: `NAME=VALUE`.
        network: none or host.
    """

    arguments: tuple[str, ...]
    env: tuple[str, ...]
    user: str
    workdir: str
    network: str
    script: str | None = None


def write_init(directory: Path, lowers: Sequence[Path], network: str) -> Path:
    """Write the layer with the files of the container, to lie above those of the image."""
    init = directory / "init"
    init_layer.write(init, list(lowers), HOSTNAME, host_network=network == "host")
    return init


def forget_init(change: Change) -> None:
    """Take the container's own files out of what was changed."""
    for name in init_layer.FILES:
        path = os.path.join(os.fsencode(change.upper), name)
        # `etc` may be whatever the step has made of it; only a file in a directory is ours
        if os.path.islink(os.path.dirname(path)):
            continue
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
            os.unlink(path)


def run(change: Change, command: Command, output: BinaryIO | int, line: int) -> None:
    """Run a command, and wait for its end.

    Raises:
        BuildError: if it does not end with exit code 0.
        ContainerError: if it can not be started.
    """
    oci.prepare_cgroups()
    state = change.path / "run"
    state.mkdir(mode=0o700)
    runtime = oci.Runtime.find(state)
    container_id = f"build-{secrets.token_hex(8)}"
    arguments = command.arguments
    binds: tuple[Bind, ...] = ()
    if command.script is not None:
        arguments, binds = (f"{_PIPES}/script",), (_script(change.path, command.script),)
    options = RunOptions(
        entrypoint=(),
        command=arguments,
        env=command.env,
        user=command.user,
        workdir=command.workdir,
        network=command.network,
        binds=binds,
    )
    bare = start.setting(str(change.merged), HOSTNAME, container_id)
    setting, _ = start.with_seccomp(bare, change.store, runtime)
    user = user_of(change.merged, command.user)
    start.write_spec(change.path / "config.json", bundle.make(RunConfig(), options, user, setting))
    code, said = _wait(runtime, container_id, change.path, output)
    oci.remove_cgroups(container_id)
    if code and said:
        raise oci.failure(said)
    if code:
        shown = command.script.splitlines()[0] if command.script else " ".join(arguments)
        raise BuildError(f"RUN {_short(shown)} has ended with exit code {code}", line)


def _short(text: str) -> str:
    first = text.strip().splitlines()[0] if text.strip() else ""
    return first if len(first) <= 200 and first == text.strip() else f"{first[:200]}..."


def _script(directory: Path, text: str) -> Bind:
    path = directory / "script"
    path.write_text(text)
    path.chmod(0o755)
    return Bind(str(path), f"{_PIPES}/script", read_only=True)


def user_of(merged: Path, text: str) -> users.User:
    """Return who a USER is, by the files of the image.

    Raises:
        ContainerError: if there is no such user.
    """
    fd = os.open(merged, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return users.resolve(text, *users.read_accounts(fd))
    finally:
        os.close(fd)


def _wait(
    runtime: oci.Runtime, container_id: str, directory: Path, output: BinaryIO | int
) -> tuple[int, str]:
    """Run the container; return its exit code, and what the runtime itself has to say."""
    log = directory / "runtime.log"
    child = subprocess.Popen(
        [
            runtime.path, "--log", str(log), *runtime.arguments,
            "run", "--bundle", str(directory), container_id,
        ],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
    )  # fmt: skip
    try:
        code = child.wait()
    except BaseException:
        runtime.run("delete", "--force", container_id, check=False)
        child.wait()
        raise
    said = log.read_text(errors="replace") if log.exists() else ""
    return (_SIGNALLED - code if code < 0 else code), said.strip()
