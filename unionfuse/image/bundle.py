"""The config.json of an OCI bundle, out of an image's config (runtime-spec; conversion.md)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import msgspec

from unionfuse.image.errors import Refused

if TYPE_CHECKING:
    from pathlib import Path

    from unionfuse.image.config import RunConfig
    from unionfuse.image.store.image import Image

_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CAPABILITIES = [
    f"CAP_{name}"
    for name in (
        "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE", "SETFCAP",
        "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
    )
]  # fmt: skip
_NAMESPACES = ("pid", "network", "ipc", "uts", "mount")
_MOUNTS = (
    ("/proc", "proc", "proc", ()),
    ("/dev", "tmpfs", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k")),
    ("/dev/pts", "devpts", "devpts", ("nosuid", "noexec", "newinstance", "ptmxmode=0666")),
    ("/dev/shm", "tmpfs", "shm", ("nosuid", "noexec", "nodev", "mode=1777", "size=65536k")),
    ("/dev/mqueue", "mqueue", "mqueue", ("nosuid", "noexec", "nodev")),
    ("/sys", "sysfs", "sysfs", ("nosuid", "noexec", "nodev", "ro")),
)
_MASKED = ("/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware")
_READONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


def runtime_config(image: Image, rootfs: Path, root_path: str = "rootfs") -> bytes:
    """Return a config.json that runs the image's command in `rootfs`.

    Raises:
        Refused: if its user is not in its /etc/passwd.
    """
    config = image.config.config
    args = [*((config and config.entrypoint) or ()), *((config and config.cmd) or ())]
    env = list((config and config.env) or ())
    if not any(entry.startswith("PATH=") for entry in env):
        env.insert(0, _PATH)
    document: dict[str, Any] = {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": user_of(config, rootfs),
            "args": args or ["sh"],
            "env": env,
            "cwd": (config and config.working_dir) or "/",
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), _CAPABILITIES),
            "noNewPrivileges": True,
        },
        "root": {"path": root_path},
        "hostname": "unionfuse",
        "mounts": [
            {"destination": where, "type": kind, "source": source, "options": list(options)}
            for where, kind, source, options in _MOUNTS
        ],
        "annotations": _annotations(image, config),
        "linux": {
            "namespaces": [{"type": kind} for kind in _NAMESPACES],
            "maskedPaths": list(_MASKED),
            "readonlyPaths": list(_READONLY),
        },
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=2)


def _annotations(image: Image, config: RunConfig | None) -> dict[str, str]:
    found = {
        "org.opencontainers.image.os": image.config.os,
        "org.opencontainers.image.architecture": image.config.architecture,
        "org.opencontainers.image.created": image.config.created or "",
        "org.opencontainers.image.author": image.config.author or "",
        "org.opencontainers.image.stopSignal": config.stop_signal if config else "",
    }
    kept = {name: value for name, value in found.items() if value}
    return {**kept, **((config and config.labels) or {})}


def user_of(config: RunConfig | None, rootfs: Path) -> dict[str, Any]:
    """Return the ids that `USER[:GROUP]` means, by the image's own passwd and group.

    Raises:
        Refused: if one of them is not there.
    """
    user, _, group = (config.user if config else "").partition(":")
    uid, gid = 0, 0
    if user:
        entry = _entry(rootfs, "etc/passwd", user)
        if entry is not None:
            uid, gid = int(entry[2]), int(entry[3])
        elif user.isdecimal():
            uid = int(user)
        else:
            raise Refused(f"user {user} is not in the image's /etc/passwd")
    if group:
        entry = _entry(rootfs, "etc/group", group)
        if entry is not None:
            gid = int(entry[2])
        elif group.isdecimal():
            gid = int(group)
        else:
            raise Refused(f"group {group} is not in the image's /etc/group")
    return {"uid": uid, "gid": gid}


def _entry(rootfs: Path, name: str, wanted: str) -> list[str] | None:
    """Return the line of passwd or group with this name or id; no symlink in it is followed."""
    try:
        root = os.open(rootfs, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    fds = [root]
    try:
        *parents, last = name.split("/")
        for parent in parents:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            fds.append(os.open(parent, flags, dir_fd=fds[-1]))
        fd = os.open(
            last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=fds[-1]
        )
        with open(fd, errors="surrogateescape") as file:
            for line in file:
                fields = line.rstrip("\n").split(":")
                if len(fields) > 3 and wanted in (fields[0], fields[2]) and fields[2].isdecimal():
                    return fields
    except OSError:
        return None
    finally:
        for each in fds:
            os.close(each)
    return None
