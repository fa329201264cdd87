"""The seccomp profile of a container: which system calls its processes may make.

podman's profile is used where it is installed (containers-common has it); it says for each rule
which capabilities and machines it is for. Without it, what a container has no business with is
refused by a list of our own, which is longer than nothing and shorter than podman's.
"""

from __future__ import annotations

import os
from typing import Any

PROFILES = ("/etc/containers/seccomp.json", "/usr/share/containers/seccomp.json")

# runtime-spec's names of machines, and Go's, which the profile uses
_MACHINES = {
    "x86_64": ("SCMP_ARCH_X86_64", "amd64"),
    "aarch64": ("SCMP_ARCH_AARCH64", "arm64"),
    "ppc64le": ("SCMP_ARCH_PPC64LE", "ppc64le"),
    "riscv64": ("SCMP_ARCH_RISCV64", "riscv64"),
    "s390x": ("SCMP_ARCH_S390X", "s390x"),
}
_ERRNO = "SCMP_ACT_ERRNO"
_EPERM, _ENOSYS = 1, 38
_CLONE_NEWUSER = 0x1000_0000

# What changes the kernel, the clock, the keys and the mounts of all, or looks into others.
_REFUSED = (
    "acct", "add_key", "bpf", "clock_adjtime", "clock_settime", "create_module", "delete_module",
    "finit_module", "fsconfig", "fsmount", "fsopen", "fspick", "get_kernel_syms", "init_module",
    "io_uring_enter", "io_uring_register", "io_uring_setup", "ioperm", "iopl", "kexec_file_load",
    "kexec_load", "keyctl", "lookup_dcookie", "mount", "mount_setattr", "move_mount", "move_pages",
    "name_to_handle_at", "nfsservctl", "open_by_handle_at", "open_tree", "perf_event_open",
    "pivot_root", "query_module", "quotactl", "quotactl_fd", "reboot", "request_key", "setns",
    "settimeofday", "stime", "swapoff", "swapon", "sysfs", "umount", "umount2", "unshare",
    "uselib", "userfaultfd", "ustat", "vm86", "vm86old",
)  # fmt: skip


def load(capabilities: frozenset[str]) -> tuple[dict[str, Any], str]:
    """Return the profile for a container with `capabilities`, and where it came from.

    Raises:
        ValueError: if the installed one can not be read as JSON.
        KeyError: if it lacks what every profile has.
    """
    import json  # where no filter is kept (`filters`)

    for path in PROFILES:
        try:
            with open(path, "rb") as file:
                profile = json.load(file)
        except FileNotFoundError:
            continue
        return adapt(profile, os.uname().machine, capabilities, _release()), path
    return builtin(), "built in"


def builtin() -> dict[str, Any]:
    """Return the profile that is used where none is installed."""
    refusal = {"action": _ERRNO, "errnoRet": _EPERM}
    return {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": _architectures({}),
        "syscalls": [
            {"names": list(_REFUSED), **refusal},
            {
                "names": ["clone"],
                **refusal,
                "args": [
                    {
                        "index": 0,
                        "value": _CLONE_NEWUSER,
                        "valueTwo": _CLONE_NEWUSER,
                        "op": "SCMP_CMP_MASKED_EQ",
                    }
                ],
            },
            # its flags are in memory, where a filter can not look; libc then uses clone
            {"names": ["clone3"], "action": _ERRNO, "errnoRet": _ENOSYS},
        ],
    }


def adapt(
    profile: dict[str, Any], machine: str, capabilities: frozenset[str], release: tuple[int, int]
) -> dict[str, Any]:
    """Turn a profile as containers-common has it into one as runtime-spec has it.

    Args:
        profile: with `archMap`, and `includes` and `excludes` on its rules.
        machine: as uname(2) names it.
        capabilities: the container's, by their names (`CAP_CHOWN`).
        release: the first two numbers of the kernel's.
    """
    names = _MACHINES.get(machine, ("", machine))
    adapted: dict[str, Any] = {"defaultAction": profile["defaultAction"]}
    if "defaultErrnoRet" in profile:
        adapted["defaultErrnoRet"] = profile["defaultErrnoRet"]
    adapted["architectures"] = _architectures(profile, machine)
    rules = []
    for rule in profile["syscalls"]:
        wanted, unwanted = rule.get("includes") or {}, rule.get("excludes") or {}
        if not _includes(wanted, names[1], capabilities, release):
            continue
        if _excludes(unwanted, names[1], capabilities, release):
            continue
        kept = {key: rule[key] for key in ("names", "action", "args", "errnoRet") if rule.get(key)}
        rules.append(kept)
    adapted["syscalls"] = rules
    return adapted


def _architectures(profile: dict[str, Any], machine: str | None = None) -> list[str]:
    native = _MACHINES.get(machine or os.uname().machine, ("", ""))[0]
    for entry in profile.get("archMap", []):
        if entry["architecture"] == native:
            return [native, *(entry.get("subArchitectures") or [])]
    return [native] if native else []


def _includes(
    wanted: dict[str, Any], machine: str, capabilities: frozenset[str], release: tuple[int, int]
) -> bool:
    return (
        (not wanted.get("arches") or machine in wanted["arches"])
        and (not wanted.get("caps") or set(wanted["caps"]) <= capabilities)
        and (not wanted.get("minKernel") or release >= _version(wanted["minKernel"]))
    )


def _excludes(
    unwanted: dict[str, Any], machine: str, capabilities: frozenset[str], release: tuple[int, int]
) -> bool:
    return bool(
        machine in (unwanted.get("arches") or ())
        or set(unwanted.get("caps") or ()) & capabilities
        or (unwanted.get("minKernel") and release >= _version(unwanted["minKernel"]))
    )


def _release() -> tuple[int, int]:
    return _version(os.uname().release)


def _version(text: str) -> tuple[int, int]:
    numbers = [int(part) for part in text.replace("-", ".").split(".") if part.isdecimal()]
    major, minor = [*numbers, 0, 0][:2]
    return major, minor
