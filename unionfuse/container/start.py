"""Start a container that is made, or has ended: mount, bundle, runtime, in this order.

Preconditions of what is here:
    The process is in namespaces of its own (`namespaces.enter`), where the mount will be.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from unionfuse.container import bundle, conmon, filters, namespaces, rootfs, seccomp, users
from unionfuse.container import runtime as oci
from unionfuse.container.errors import ContainerError, WrongState
from unionfuse.container.finish import end_strays, put_away
from unionfuse.container.runtime import Runtime
from unionfuse.container.state import CREATED, RUNNING, State, remove_tree
from unionfuse.record import replace

if TYPE_CHECKING:
    from unionfuse.container.mounter import Mounter
    from unionfuse.container.state import Container
    from unionfuse.container.users import User


def prepare(container: Container, *, attended_by: int = 0, ready: Mounter | None = None) -> State:
    """Mount the root filesystem and have the runtime make the container; it does not run yet.

    Args:
        container: one that does not run.
        attended_by: the process that will put it away (`finish.put_away`), for as long as it lives.
        ready: what has got ready to mount, if anything has.

    Raises:
        WrongState: if it runs.
        ContainerError: if it can not be mounted or made; nothing is left of the attempt then.
    """
    state = container.state()
    if state.status == RUNNING:
        raise WrongState(f"{container.record.name} is running")
    end_strays(container)
    oci.prepare_cgroups()
    runtime = fresh_runtime(container)
    daemon = rootfs.mount_container(container, ready)
    # Known from here on: if this process is killed now, the next command ends the daemon.
    started = time.time_ns()
    container.save(State(status=RUNNING, started=started, daemon=daemon))
    try:
        profile = _write_bundle(container, runtime)
        command = exit_command(container, started)
        made = conmon.create(container, runtime, command, attended_by)
        if profile:
            filters.keep(_root(container), runtime, container.id, profile)
    except BaseException as err:
        put_away(container, replace_error(state, str(err)))
        raise
    running = State(
        status=RUNNING,
        started=started,
        daemon=daemon,
        conmon=made.conmon,
        init=made.init,
    )
    container.save(running)
    return running


def begin(container: Container) -> None:
    """Let the container run.

    Raises:
        ContainerError: if the runtime refuses.
    """
    runtime_of(container).run("start", container.id)


def runtime_of(container: Container) -> Runtime:
    """Return the runtime that knows the container, while it is running."""
    return Runtime.find(container.path / "run")


def fresh_runtime(container: Container) -> Runtime:
    """Return a runtime that knows of no container: what it knew is of an earlier run."""
    root = container.path / "run"
    if root.exists():
        remove_tree(root)
    root.mkdir(mode=0o700)
    return Runtime.find(root)


def setting_of(container: Container) -> bundle.Setting:
    """Return what the machine gives to this container."""
    return setting(str(container.merged), container.record.hostname, container.id)


def setting(rootfs: str, hostname: str, container_id: str) -> bundle.Setting:
    """Return what the machine gives to a container with its root filesystem at `rootfs`."""
    mapped = namespaces.in_user_namespace()
    found = bundle.Setting(
        rootfs=rootfs,
        hostname=hostname,
        user_namespace=mapped,
        cgroups_path=None if mapped else f"{oci.CGROUP}/{container_id}",
        cgroup_namespace=not mapped and oci.has_cgroup_v2(),
    )
    if mapped:
        highest = namespaces.highest_id("uid"), namespaces.highest_id("gid")
        found = replace(found, highest_uid=highest[0], highest_gid=highest[1])
    return found


def user_of(container: Container, text: str = "") -> User:
    """Return who a process in the container is; `text` is in place of what was asked for."""
    record = container.record
    fd = os.open(container.merged, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        passwd, group = users.read_accounts(fd)
    finally:
        os.close(fd)
    return users.resolve(text or record.options.user or record.config.user, passwd, group)


def exit_command(container: Container, started: int) -> list[str]:
    """Return the command that puts a container away when this run of it has ended."""
    root = _root(container)
    program = [sys.executable, "-m", "unionfuse.container.finish"]
    return [*program, str(root), container.id, str(started)]


def replace_error(before: State, error: str) -> State:
    """Return the state of a container whose start has failed: the one before, with the cause."""
    return State(
        status=before.status if before.status == CREATED else "exited",
        exit_code=before.exit_code,
        started=before.started,
        finished=before.finished,
        error=error,
    )


def _write_bundle(container: Container, runtime: Runtime) -> bytes:
    """Write config.json; return the seccomp profile in it if its filter should be kept."""
    record = container.record
    _fill_volumes(container)
    setting, profile = with_seccomp(setting_of(container), _root(container), runtime)
    spec = bundle.make(record.config, record.options, user_of(container), setting, record.volumes)
    write_spec(container.path / "config.json", spec)
    return profile


def with_seccomp(
    setting: bundle.Setting, root: Path, runtime: Runtime
) -> tuple[bundle.Setting, bytes]:
    """Return a setting with the seccomp profile for containers.

    Args:
        setting: without it.
        root: the store.
        runtime: what makes a filter of it.

    Returns:
        The profile once more if the runtime will make a filter that should be kept (`filters`).

    Raises:
        ContainerError: if the profile can not be read.
    """
    takes_filters = os.path.basename(runtime.path) == "crun"
    if takes_filters and (kept := filters.recall(root, runtime)):
        raw = msgspec.Raw(kept.profile)
        return replace(setting, seccomp=raw, seccomp_filter=kept.filter), b""
    try:
        profile, _ = seccomp.load(frozenset(bundle.CAPABILITIES))
    except (ValueError, KeyError, TypeError) as err:
        raise ContainerError(f"the seccomp profile can not be read: {err}") from None
    return replace(setting, seccomp=profile), msgspec.json.encode(profile) if takes_filters else b""


def _root(container: Container) -> Path:
    """Return the store that a container is in."""
    return container.path.parent.parent


def write_spec(path: Path, spec: dict[str, Any]) -> None:
    """Write a document for the runtime."""
    path.write_bytes(msgspec.json.encode(spec))


def _fill_volumes(container: Container) -> None:
    """Give each of the image's Volumes what the image has at its place, the first time."""
    for volume in container.record.volumes:
        source = Path(volume.source)
        if source.exists():
            continue
        source.mkdir()
        fd = -1
        with contextlib.suppress(OSError):
            fd = users.open_below(container.merged, volume.target)
        if fd < 0:
            continue
        try:
            subprocess.run(
                ["cp", "-a", "--reflink=auto", f"/proc/self/fd/{fd}/.", str(source)],
                check=True,
                capture_output=True,
                pass_fds=(fd,),
            )
        except subprocess.CalledProcessError as err:
            said = err.stderr.decode(errors="replace").strip()
            raise ContainerError(f"volume {volume.target}: {said}") from None
        finally:
            os.close(fd)
