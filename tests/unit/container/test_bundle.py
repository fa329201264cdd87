from typing import Any

import pytest

from unionfuse.container import bundle
from unionfuse.container.bundle import Setting
from unionfuse.container.errors import ContainerError
from unionfuse.container.options import Bind, Limits, RunOptions, Tmpfs
from unionfuse.container.users import User
from unionfuse.image.config import RunConfig

CONFIG = RunConfig(
    entrypoint=("/entry",), cmd=("a", "b"), env=("PATH=/bin", "LANG=C"), working_dir="/srv"
)
SETTING = Setting(rootfs="/r", hostname="box")


def make(config: RunConfig = CONFIG, setting: Setting = SETTING, **options: Any) -> dict[str, Any]:
    user = options.pop("user_is", User())
    return bundle.make(config, RunOptions(**options), user, setting)


def targets(spec: dict[str, Any]) -> list[str]:
    return [mount["destination"] for mount in spec["mounts"]]


@pytest.mark.parametrize(
    ("options", "args"),
    [
        ({}, ["/entry", "a", "b"]),
        ({"command": ("c",)}, ["/entry", "c"]),
        ({"entrypoint": ("/other",)}, ["/other"]),
        ({"entrypoint": ("/other",), "command": ("c",)}, ["/other", "c"]),
        ({"entrypoint": (), "command": ("c",)}, ["c"]),
    ],
)
def test_entrypoint_and_cmd_make_the_command(options: dict[str, Any], args: list[str]) -> None:
    assert make(**options)["process"]["args"] == args


def test_an_image_without_a_command_needs_one() -> None:
    with pytest.raises(ContainerError, match="no command"):
        make(RunConfig())


def test_variables_of_the_user_win_over_those_of_the_image_and_these_over_the_usual() -> None:
    env = make(env=("LANG=de", "X=1=2"), tty=True)["process"]["env"]
    assert env == ["PATH=/bin", "HOSTNAME=box", "HOME=/", "TERM=xterm", "LANG=de", "X=1=2"]


def test_the_working_directory_is_absolute_and_below_the_root() -> None:
    assert make()["process"]["cwd"] == "/srv"
    assert make(workdir="../../x")["process"]["cwd"] == "/x"
    assert make(RunConfig(cmd=("a",)))["process"]["cwd"] == "/"


def test_root_has_podmans_capabilities_and_another_user_none_in_effect() -> None:
    root = make()["process"]["capabilities"]
    other = make(user_is=User(5, 6, (7,)))["process"]
    assert "CAP_SYS_ADMIN" not in root["bounding"]
    assert root["effective"] == root["bounding"]
    assert other["user"] == {"uid": 5, "gid": 6, "additionalGids": [6, 7]}
    assert other["capabilities"]["effective"] == []


def test_an_id_that_the_user_namespace_lacks_is_refused_with_what_helps() -> None:
    alone = Setting(rootfs="/r", hostname="h", user_namespace=True, highest_uid=0, highest_gid=0)
    with pytest.raises(ContainerError, match="/etc/subuid"):
        make(setting=alone, user_is=User(5, 0))
    pts = next(m for m in make(setting=alone)["mounts"] if m["destination"] == "/dev/pts")
    assert not [option for option in pts["options"] if option.startswith("gid=")]


def test_without_a_network_there_is_a_namespace_of_it_and_with_the_hosts_none() -> None:
    def kinds(spec: dict[str, Any]) -> set[str]:
        return {namespace["type"] for namespace in spec["linux"]["namespaces"]}

    assert "network" in kinds(make())
    assert "network" not in kinds(make(network="host"))


def test_the_hosts_sys_is_shown_where_the_network_namespace_is_not_ours() -> None:
    mapped = Setting(rootfs="/r", hostname="h", user_namespace=True)
    sys = next(m for m in make(setting=mapped, network="host")["mounts"] if m["type"] == "bind")
    assert (sys["destination"], "ro" in sys["options"]) == ("/sys", True)


def test_limits_are_set_as_the_runtime_has_them() -> None:
    resources = make(limits=Limits(64 << 20, 1.5, 100))["linux"]["resources"]
    assert resources["memory"] == {"limit": 64 << 20}
    assert resources["cpu"] == {"quota": 150_000, "period": 100_000}
    assert resources["pids"] == {"limit": 100}


def test_mounts_of_the_user_come_after_the_usual_ones_and_outer_ones_first() -> None:
    spec = make(
        binds=(Bind("/host/x", "/a/b/c", read_only=True), Bind("/host/y", "/a")),
        tmpfs=(Tmpfs("/a/b", ("size=1m",)),),
    )
    assert targets(spec)[-3:] == ["/a", "/a/b", "/a/b/c"]
    assert "ro" in spec["mounts"][-1]["options"]
    assert "size=1m" in spec["mounts"][-2]["options"]


def test_dangerous_parts_of_proc_are_masked() -> None:
    linux = make()["linux"]
    assert "/proc/kcore" in linux["maskedPaths"]
    assert "/proc/sys" in linux["readonlyPaths"]


def test_a_read_only_root_is_told_to_the_runtime() -> None:
    assert make(read_only=True)["root"] == {"path": "/r", "readonly": True}


def test_labels_are_annotations_but_give_the_runtime_no_orders() -> None:
    labels = {"a": "b", "run.oci.seccomp_bpf_data": "AAAA", "run.oci.handler": "krun"}
    assert make(RunConfig(cmd=("a",), labels=labels))["annotations"] == {"a": "b"}


def test_the_filter_of_a_profile_is_an_annotation() -> None:
    setting = Setting(rootfs="/r", hostname="box", seccomp={"defaultAction": "x"},
                      seccomp_filter="BQ==")  # fmt: skip
    spec = make(setting=setting)
    assert spec["annotations"] == {"run.oci.seccomp_bpf_data": "BQ=="}
    assert spec["linux"]["seccomp"] == {"defaultAction": "x"}
