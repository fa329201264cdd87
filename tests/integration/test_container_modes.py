"""Containers by another runtime, and of a user without subordinate ids."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import clients, containers
from tests.support.containers import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.clients import House

pytestmark = [
    pytest.mark.clients, pytest.mark.fuse, pytest.mark.root, pytest.mark.once,
    pytest.mark.timeout(120),
]  # fmt: skip

IMAGE = "localhost/base:1"
RUNC = "/usr/sbin/runc"


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    with clients.temporary_house() as made:
        yield made


@pytest.mark.parametrize("who", ["root", "user"])
def test_runc_runs_them_as_crun_does(house: House, who: str) -> None:
    with containers.tool(
        house, f"runc-{who}", is_root=who == "root", UNIONFUSE_RUNTIME=RUNC
    ) as tool:
        tool.run("image", "import", house.base / "busybox.tar", IMAGE, "--cmd", "sh")
        assert (
            tool.out("run", "--rm", IMAGE, "sh", "-c", "echo x > /new; cat /new; id -u") == "x\n0"
        )
        assert tool.run("run", "--rm", IMAGE, "sh", "-c", "exit 7", code=7)
        tool.run("run", "-d", "--name", "box", IMAGE, "sleep", "1000")
        assert Path(f"/proc/{tool.state('box')['pid']}/comm").read_text() == "sleep\n"
        assert tool.out("exec", "-u", "5:6", "box", "id", "-u") == "5"
        tool.run("stop", "-t", "0", "box")
        tool.run("start", "box")
        tool.run("rm", "-f", "box")
        wait_for(tool.is_clean)


def test_without_subordinate_ids_everything_is_of_one_user(house: House) -> None:
    with containers.tool(house, "single", is_root=False, UNIONFUSE_NO_USERNS="1") as tool:
        tool.run("image", "import", house.base / "busybox.tar", IMAGE, "--cmd", "sh")
        ids = tool.out("run", "--rm", IMAGE, "cat", "/proc/self/uid_map").split()
        assert ids == ["0", str(clients.UID), "1"]
        script = (
            "echo kept > /kept; chmod 600 /kept; rm /etc/group; chown 5:6 /kept || echo refused"
        )
        assert "refused" in tool.out("run", "--name", "box", IMAGE, "sh", "-c", script)
        assert sorted(tool.out("diff", "box").split("\n")) == ["A /kept", "C /etc", "D /etc/group"]
        tool.run("commit", "box", "localhost/changed:1")
        show = "cat /kept; stat -c '%a %u:%g' /kept; test ! -e /etc/group && echo gone"
        said = tool.out("run", "--rm", "localhost/changed:1", "sh", "-c", show)
        assert said == "kept\n600 0:0\ngone"
        tool.run("rm", "box")
        wait_for(tool.is_clean)
