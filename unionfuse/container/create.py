"""Make a container of an image: its directory, its init layer, its volumes."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from unionfuse.container import bundle, init_layer, names, namespaces
from unionfuse.container.errors import ContainerError
from unionfuse.container.options import Bind
from unionfuse.container.signals import parse_signal
from unionfuse.container.state import Container, Containers, Record, new_name
from unionfuse.record import record

if TYPE_CHECKING:
    from pathlib import Path

    from unionfuse.container.options import RunOptions
    from unionfuse.image.config import RunConfig

DEFAULT_STOP_SIGNAL = "SIGTERM"


@record
class Source:
    """What a container is made of.

    Attributes:
        image: its name.
        image_id: digest of its config.
        manifest: digest of its manifest.
        config: how it has a container started.
        layers: directories, the topmost first.
        override: whether owners are kept in attributes there.
        uses: names of what has to stay in the store, as `image.store.lease` has them.
    """

    image: str
    image_id: str
    manifest: str
    config: RunConfig
    layers: tuple[Path, ...]
    override: bool = False
    uses: tuple[str, ...] = ()


def create(
    containers: Containers, source: Source, options: RunOptions, name: str | None
) -> Container:
    """Make a container that has never run.

    Raises:
        ContainerError: if the name is taken, the image has nothing to run, or a limit can not be
            set here.
    """
    if name is not None and containers.is_taken(names.check_name(name)):
        raise ContainerError(f"the name {name} is taken: unionfuse rm {name} frees it")
    bundle.arguments(source.config, options)  # better now than when everything is mounted
    parse_signal(source.config.stop_signal or DEFAULT_STOP_SIGNAL)
    _check_limits(options)
    container_id = names.new_id()
    hostname = options.hostname or container_id[: names.SHORT]
    if options.network == "host" and not options.hostname:
        hostname = os.uname().nodename
    with containers.making(container_id) as path:
        for directory in ("upper", "work", "merged", "volumes", "uses"):
            (path / directory).mkdir(mode=0o700)
        for use in source.uses:
            (path / "uses" / use).touch()
        _as_below(path / "upper", source.layers)
        init_layer.write(
            path / "init",
            list(source.layers),
            hostname,
            host_network=options.network == "host",
        )
        record = Record(
            id=container_id,
            name=name or new_name(containers),
            image=source.image,
            image_id=source.image_id,
            manifest=source.manifest,
            created=time.time_ns(),
            hostname=hostname,
            lowers=tuple(map(str, source.layers)),
            config=source.config,
            options=options,
            volumes=_volumes(containers.path / container_id, source.config, options),
            override=source.override,
        )
        return containers.add(path, record)


def _as_below(upper: Path, layers: tuple[Path, ...]) -> None:
    """Give the root of the upper the attributes of the image's, which it covers."""
    upper.chmod(0o755)
    if layers:
        st = layers[0].stat()
        os.chown(upper, st.st_uid, st.st_gid)
        upper.chmod(st.st_mode & 0o7777)
        os.utime(upper, ns=(st.st_atime_ns, st.st_mtime_ns))


def _volumes(path: Path, config: RunConfig, options: RunOptions) -> tuple[Bind, ...]:
    """Return the directories for the image's Volumes that nothing else is put on."""
    taken = {bind.target for bind in options.binds} | {tmpfs.target for tmpfs in options.tmpfs}
    targets = sorted(os.path.normpath("/" + t.lstrip("/")) for t in config.volumes or ())
    return tuple(
        Bind(str(path / "volumes" / str(number)), target)
        for number, target in enumerate(targets)
        if target not in taken and target != "/"
    )


def _check_limits(options: RunOptions) -> None:
    if options.limits and (os.geteuid() != 0 or namespaces.in_user_namespace()):
        raise ContainerError(
            "--memory, --cpus and --pids-limit need root: an unprivileged user has no cgroup to "
            "set them in"
        )
