from typing import Any

from unionfuse.container.seccomp import adapt, builtin

PROFILE: dict[str, Any] = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "defaultErrnoRet": 38,
    "archMap": [
        {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
        {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": None},
    ],
    "syscalls": [
        {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [], "includes": {}, "excludes": {}},
        {"names": ["arm"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["arm64"]}},
        {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["mount"], "action": "SCMP_ACT_ERRNO", "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
    ],
}


def names(capabilities: frozenset[str] = frozenset(), release: tuple[int, int] = (6, 1)) -> Any:
    adapted = adapt(PROFILE, "x86_64", capabilities, release)
    return [(rule["names"][0], rule["action"][9:]) for rule in adapted["syscalls"]]


def test_rules_for_other_machines_and_capabilities_are_left_out() -> None:
    assert names() == [("read", "ALLOW"), ("mount", "ERRNO"), ("ptrace", "ALLOW")]


def test_rules_for_capabilities_of_the_container_are_kept() -> None:
    assert ("mount", "ALLOW") in names(frozenset({"CAP_SYS_ADMIN"}))
    assert ("mount", "ERRNO") not in names(frozenset({"CAP_SYS_ADMIN"}))


def test_rules_for_newer_kernels_are_left_out() -> None:
    assert ("ptrace", "ALLOW") not in names(release=(4, 7))


def test_the_architectures_are_the_machines_own_and_what_it_also_runs() -> None:
    adapted = adapt(PROFILE, "x86_64", frozenset(), (6, 1))
    assert adapted["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]
    assert adapted["defaultErrnoRet"] == 38
    assert "archMap" not in adapted


def test_the_built_in_profile_refuses_what_changes_the_machine() -> None:
    refused = {name for rule in builtin()["syscalls"] for name in rule["names"]}
    assert {"mount", "kexec_load", "bpf", "init_module", "unshare"} <= refused
