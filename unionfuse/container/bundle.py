"""The config.json of a bundle: an image's config and a user's wishes as runtime-spec has them.

The mapping is image-spec's conversion.md; what it leaves open (capabilities, what is masked, the
usual mounts) is as podman has it. A pure function: what depends on the machine is a `Setting`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from unionfuse.container import filters
from unionfuse.container.errors import ContainerError
from unionfuse.record import record

if TYPE_CHECKING:
    from msgspec import Raw

    from unionfuse.container.options import Bind, Limits, RunOptions
    from unionfuse.container.users import User
    from unionfuse.image.config import RunConfig

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CAPABILITIES = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL",
    "CAP_NET_BIND_SERVICE", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID",
    "CAP_SYS_CHROOT",
)  # fmt: skip
_MASKED = (
    "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug",
    "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/dev/block",
    "/sys/devices/virtual/powercap", "/sys/firmware", "/sys/fs/selinux",
)  # fmt: skip
_READ_ONLY = (
    "/proc/asound", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger",
)  # fmt: skip
_ORDERS = ("run.oci.", "module.wasm.", "org.systemd.property.")  # crun's and runc's annotations
_TTY_GROUP = 5
_CPU_PERIOD = 100_000  # microseconds
_SAFE = ("nosuid", "noexec", "nodev")


@record
class Setting:
    """What the machine gives, and who runs the container.

    Attributes:
        rootfs: absolute path of the mount.
        hostname: of the container.
        user_namespace: whether its root is not the machine's.
        highest_uid, highest_gid: the highest ids that there are.
        cgroups_path: of the container; None: it gets no cgroup of its own.
        cgroup_namespace: whether it gets a namespace of cgroups (version 2).
        seccomp: a profile of runtime-spec, or its JSON; None: none.
        seccomp_filter: what the runtime has made of that before, in base64; empty: nothing.
    """

    rootfs: str
    hostname: str
    user_namespace: bool = False
    highest_uid: int = (1 << 32) - 2
    highest_gid: int = (1 << 32) - 2
    cgroups_path: str | None = None
    cgroup_namespace: bool = False
    seccomp: dict[str, Any] | Raw | None = None
    seccomp_filter: str = ""


def arguments(config: RunConfig, options: RunOptions) -> list[str]:
    """Return the command of a container: Entrypoint and Cmd, or what takes their place.

    Raises:
        ContainerError: if that is nothing.
    """
    if options.entrypoint is not None:
        command = [*options.entrypoint, *options.command]
    else:
        command = [*(config.entrypoint or ()), *(options.command or config.cmd or ())]
    if not command or not command[0]:
        raise ContainerError("the image has no command: give one")
    return command


def environment(config: RunConfig, options: RunOptions, user: User, hostname: str) -> list[str]:
    """Return the variables: the usual ones, those of the image over them, then the user's."""
    usual = [PATH, f"HOSTNAME={hostname}", f"HOME={user.home}"]
    if options.tty:
        usual.append("TERM=xterm")
    merged: dict[str, str] = {}
    for assigned in (*usual, *(config.env or ()), *options.env):
        name, equals, value = assigned.partition("=")
        if name and equals:
            merged[name] = value
    return [f"{name}={value}" for name, value in merged.items()]


def process(config: RunConfig, options: RunOptions, user: User, setting: Setting) -> dict[str, Any]:
    """Return the `process` of runtime-spec.

    Raises:
        ContainerError: if there is no command, or the user has an id that there is not.
    """
    _check_ids(user, setting)
    held = list(CAPABILITIES)
    given = held if user.uid == 0 else []  # what a process that is not root has by itself
    # The own group is among the further ones, or setgid(2) would get rid of it, and with it of
    # modes that allow its members less than others. With a single id there are none.
    groups = dict.fromkeys((user.gid, *user.groups)) if setting.highest_gid else user.groups
    return {
        "terminal": options.tty,
        "user": {"uid": user.uid, "gid": user.gid, "additionalGids": list(groups)},
        "args": arguments(config, options),
        "env": environment(config, options, user, setting.hostname),
        "cwd": _workdir(config, options),
        "capabilities": {"bounding": held, "effective": given, "permitted": given},
        "noNewPrivileges": False,
    }


def make(
    config: RunConfig,
    options: RunOptions,
    user: User,
    setting: Setting,
    volumes: tuple[Bind, ...] = (),
) -> dict[str, Any]:
    """Return a config.json.

    Args:
        config: of the image.
        options: what the user asked for.
        user: who the process is, by the image's own files.
        setting: what the machine gives.
        volumes: the directories that stand for the image's Volumes.

    Raises:
        ContainerError: see `process`.
    """
    namespaces = ["pid", "ipc", "uts", "mount"]
    if options.network != "host":
        namespaces.append("network")
    if setting.cgroup_namespace:
        namespaces.append("cgroup")
    linux: dict[str, Any] = {
        "namespaces": [{"type": name} for name in namespaces],
        "maskedPaths": list(_MASKED),
        "readonlyPaths": list(_READ_ONLY),
        "resources": _resources(options.limits, setting),
    }
    if setting.cgroups_path is not None:
        linux["cgroupsPath"] = setting.cgroups_path
    if setting.seccomp is not None:
        linux["seccomp"] = setting.seccomp
    spec: dict[str, Any] = {
        "ociVersion": "1.0.2",
        "process": process(config, options, user, setting),
        "root": {"path": setting.rootfs, "readonly": options.read_only},
        "hostname": setting.hostname,
        "mounts": _mounts(options, setting, volumes),
        "linux": linux,
    }
    if annotations := _annotations(config, setting):
        spec["annotations"] = annotations
    return spec


def _annotations(config: RunConfig, setting: Setting) -> dict[str, str]:
    """Return the labels of the image, but for those by which it would give orders to the runtime.

    crun takes from annotations what is no business of an image: a seccomp filter, for one.
    """
    labels = config.labels or {}
    found = {key: text for key, text in labels.items() if not key.startswith(_ORDERS)}
    if setting.seccomp_filter:
        found[filters.ANNOTATION] = setting.seccomp_filter
    return found


def _workdir(config: RunConfig, options: RunOptions) -> str:
    path = options.workdir or config.working_dir or "/"
    return os.path.normpath("/" + path.lstrip("/"))


def _check_ids(user: User, setting: Setting) -> None:
    if user.uid > setting.highest_uid or max(user.gid, *user.groups, 0) > setting.highest_gid:
        raise ContainerError(
            f"there is no user {user.uid}:{user.gid} here: your user namespace has the uids up to "
            f"{setting.highest_uid} and the gids up to {setting.highest_gid}; more come from "
            "/etc/subuid and /etc/subgid, through newuidmap"
        )


def _resources(limits: Limits, setting: Setting) -> dict[str, Any]:
    resources: dict[str, Any] = {}
    if not setting.user_namespace:  # there the kernel lets no devices be made anyhow
        resources["devices"] = [{"allow": False, "access": "rwm"}]
    if limits.memory:
        resources["memory"] = {"limit": limits.memory}
    if limits.cpus:
        quota = round(limits.cpus * _CPU_PERIOD)
        resources["cpu"] = {"quota": quota, "period": _CPU_PERIOD}
    if limits.pids:
        resources["pids"] = {"limit": limits.pids}
    return resources


def _mount(target: str, fstype: str, source: str, *options: str) -> dict[str, Any]:
    return {"destination": target, "type": fstype, "source": source, "options": list(options)}


def _mounts(options: RunOptions, setting: Setting, volumes: tuple[Bind, ...]) -> list[Any]:
    shared_network = options.network == "host"
    terminals = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]
    if setting.highest_gid >= _TTY_GROUP:
        terminals.append(f"gid={_TTY_GROUP}")
    mounts = [
        _mount("/proc", "proc", "proc", *_SAFE),
        _mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
        _mount("/dev/pts", "devpts", "devpts", *terminals),
        _mount("/dev/mqueue", "mqueue", "mqueue", *_SAFE),
        _mount("/dev/shm", "tmpfs", "shm", *_SAFE, "mode=1777", "size=65536k"),
    ]
    if setting.user_namespace and shared_network:
        # sysfs belongs to the network namespace: who does not own that can only show the host's
        mounts.append(_mount("/sys", "bind", "/sys", "rbind", "ro", "rslave", *_SAFE))
    else:
        mounts.append(_mount("/sys", "sysfs", "sysfs", *_SAFE, "ro"))
        if setting.cgroups_path is not None or setting.cgroup_namespace:
            mounts.append(_mount("/sys/fs/cgroup", "cgroup", "cgroup", *_SAFE, "relatime", "ro"))
    mounts += [
        _mount(tmpfs.target, "tmpfs", "tmpfs", "nosuid", "nodev", "mode=1777", *tmpfs.options)
        for tmpfs in options.tmpfs
    ]
    mounts += [_bind(bind) for bind in (*volumes, *options.binds)]
    # what is mounted on a directory would hide what is mounted below it
    usual = len(mounts) - len(options.tmpfs) - len(volumes) - len(options.binds)
    return mounts[:usual] + sorted(mounts[usual:], key=lambda m: m["destination"].count("/"))


def _bind(bind: Bind) -> dict[str, Any]:
    flags = ["rbind", "rprivate", "ro" if bind.read_only else "rw"]
    return _mount(bind.target, "bind", bind.source, *flags)
