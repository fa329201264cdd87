"""Images from Dockerfiles: what podman makes of the same file, the cache, errors, as two users."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import clients, containers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.clients import Engine, House
    from tests.support.containers import Tool

pytestmark = [
    pytest.mark.clients,
    pytest.mark.fuse,
    pytest.mark.root,
    pytest.mark.once,
    pytest.mark.timeout(120),
]

IMAGE = "localhost/busybox:1"
# What podman 4.3 can read too: no heredocs.
DOCKERFILE = f"""\
ARG BASE={IMAGE}
FROM $BASE AS made
ARG V=1
WORKDIR /src
COPY . .
RUN echo $V > version; ln version hard; chown 5:6 hard
RUN ["/bin/sh", "-c", "rm -r /var/log; mkdir -m 700 /var/log; rm /bin/vi"]

FROM $BASE
ENV GREETING="good day" EMPTY=
LABEL "a.b"="c d" $GREETING=x
COPY --from=made /src/version /src/tree /copied/
COPY --from=made /src /all
COPY --chown=user:user tree /new/dir
COPY --chown=7 --chmod=640 a.txt b.txt /owned/
COPY ["a*", "odd name", "/odd/"]
COPY tree/ /bin
COPY a.txt /etc/../link/
COPY a.txt /renamed
ADD plain.tar /plain
ADD --chown=3:4 packed.tgz /packed/
ADD a.txt /packed/
RUN umask 077; mkdir /root/x; echo $GREETING > /root/x/y; rm /etc/group; touch -d @1000 /etc/old; \\
    # a comment
    rm -r /usr/bin && mkdir /usr/bin && echo new > /usr/bin/new
USER user
WORKDIR work/here
WORKDIR deeper
RUN id -u > /tmp/id; pwd > /tmp/pwd
VOLUME /data
EXPOSE 80 443/udp
STOPSIGNAL SIGINT
HEALTHCHECK --interval=1m30s --retries=2 CMD echo fine
SHELL ["/bin/sh", "-ec"]
ENTRYPOINT ["cat"]
CMD ["/tmp/id"]
"""


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    base = Path(tempfile.mkdtemp(prefix="build.", dir="/tmp"))  # sockets' paths have to be short
    base.chmod(0o755)
    try:
        with clients.house(base) as made:
            clients.busybox_rootfs(base)
            write_context(base / "context")
            yield made
    finally:
        shutil.rmtree(base, ignore_errors=True)


@pytest.fixture(scope="module", params=["root", "user"])
def tool(request: pytest.FixtureRequest, house: House) -> Iterator[Tool]:
    with containers.tool(house, request.param, is_root=request.param == "root") as made:
        made.run("image", "import", house.base / "busybox.tar", IMAGE, "--cmd", "sh")
        yield made


@pytest.fixture
def engine(tool: Tool) -> Iterator[Engine]:
    name = f"podman-{tool.base.name}"
    with clients.engine(tool.house, name, is_root=tool.is_root, program=None) as made:
        made.podman(
            "import", "--quiet", "--change", 'CMD ["sh"]', tool.house.base / "busybox.tar", IMAGE
        )
        yield made


def write_context(path: Path) -> None:
    path.mkdir()
    (path / "a.txt").write_text("a\n")
    (path / "b.txt").write_text("b\n")
    (path / "b.txt").chmod(0o600)
    (path / "odd name").write_text("odd\n")
    tree = path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub").chmod(0o750)
    (tree / "sub" / "file").write_text("file\n")
    (tree / "link").symlink_to("sub/file")
    (tree / "away").symlink_to("/etc/passwd")
    (tree / "program").write_text("#!/bin/sh\n")
    (tree / "program").chmod(0o755)
    (tree / "left.log").write_text("out\n")
    (tree / "kept.log").write_text("in\n")
    (path / ".dockerignore").write_text("# none\n**/*.log\n!tree/kept.log\n.dockerignore\n")
    with tarfile.open(path / "plain.tar", "w") as tar:
        tar.add(tree, "in", filter=_owned)
    with tarfile.open(path / "packed.tgz", "w:gz") as tar:
        tar.add(tree, "in", filter=_owned)
    (path / "Dockerfile").write_text(DOCKERFILE)
    for each in (path, *path.rglob("*")):
        os.utime(each, (1_000_000_000, 1_000_000_000), follow_symlinks=False)
        os.chown(each, clients.UID, clients.UID, follow_symlinks=False)


def _owned(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid, member.gid, member.uname, member.gname = 11, 12, "", ""
    return member


def listed(data: bytes) -> dict[str, tuple[object, ...]]:
    """Return what is in a tar, by name; times of nothing but files that were copied."""
    found: dict[str, tuple[object, ...]] = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive:
            name = member.name.removeprefix("./").strip("/")
            content = archive.extractfile(member) if member.isreg() else None
            found[name] = (
                member.type, oct(member.mode & 0o7777), member.uid, member.gid, member.linkname,
                b"" if content is None else content.read(),
                member.mtime if member.isreg() and member.mtime < 1_700_000_000 else 0,
            )  # fmt: skip
    found.pop(".", None)
    return found


def different(ours: dict[str, tuple[object, ...]], theirs: dict[str, tuple[object, ...]]) -> str:
    """Return a line for each name that is not the same: ours, then theirs."""
    names = sorted({*ours, *theirs})
    return "\n".join(
        f"{name}: {ours.get(name)} {theirs.get(name)}"
        for name in names
        if ours.get(name) != theirs.get(name)
    )


def exported(tool: Tool, name: str) -> dict[str, tuple[object, ...]]:
    path = tool.base / "exported.tar"
    path.unlink(missing_ok=True)
    tool.run("image", "export", name, "-o", path)
    return listed(path.read_bytes())


def inspected(tool: Tool, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(tool.out("image", "inspect", name))[0]["config"]["config"]
    return found


# Given by buildah to an image that says nothing of it, and by us to its containers.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class TestBesidePodman:
    def test_the_image_is_that_which_podman_builds(self, tool: Tool, engine: Engine) -> None:
        context = tool.house.base / "context"
        said = tool.run("build", "-t", "localhost/made:1", context)
        engine.podman(
            "build", "--layers=false", "--format", "docker", "-t", "localhost/made:1", context
        )
        engine.podman("create", "--name", "it", "localhost/made:1")
        theirs = engine.base / "theirs.tar"
        engine.podman("export", "it", "-o", theirs)
        tree = {
            name: entry
            for name, entry in listed(theirs.read_bytes()).items()
            if name not in ("run/.containerenv", "etc/hostname", "etc/hosts", "etc/resolv.conf")
        }
        ours = exported(tool, "localhost/made:1")
        assert different(ours, tree) == "", said.stderr
        own = inspected(tool, "localhost/made:1")
        shown = json.loads(engine.podman("image", "inspect", "localhost/made:1"))[0]
        their = shown["Config"]
        # What buildah adds of its own, and what podman shows at another place or not at all.
        their["Labels"].pop("io.buildah.version")
        their["Env"].remove(f"PATH={PATH}")
        own.pop("Shell")
        assert own.pop("Healthcheck") == shown["Healthcheck"]
        assert own == their
