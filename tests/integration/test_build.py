"""Images from Dockerfiles: what podman makes of the same file, the cache, errors, as two users."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
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
    with clients.temporary_house() as made:
        write_context(made.base / "context")
        yield made


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
    tree.chmod(0o711)  # which is no part of what is copied
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


class TestBesidePodman:
    def test_the_image_is_that_which_podman_builds_and_runs_there(
        self, tool: Tool, engine: Engine
    ) -> None:
        context = tool.house.base / "context"
        tool.run("build", "-t", "localhost/made:1", context)
        engine.podman(
            "build", "--layers=false", "--format", "docker", "-t", "localhost/made:1", context
        )
        engine.podman("create", "--name", "it", "localhost/made:1")
        theirs = engine.base / "theirs.tar"
        engine.podman("export", "it", "-o", theirs)
        of_container = ("run/.containerenv", "etc/hostname", "etc/hosts", "etc/resolv.conf")
        tree = listed(theirs.read_bytes())
        tree = {name: entry for name, entry in tree.items() if name not in of_container}
        assert different(exported(tool, "localhost/made:1"), tree) == ""

        known = json.loads(engine.podman("image", "inspect", "localhost/made:1"))[0]
        config = {**known["Config"], "Healthcheck": known["Healthcheck"]}
        del config["Labels"]["io.buildah.version"]
        own = inspected(tool, "localhost/made:1")
        assert own.pop("Shell") == ["/bin/sh", "-ec"]  # which podman does not show
        assert own == config

        saved = engine.base / "saved.tar"
        path = tool.base / "saved.tar"
        tool.run("image", "save", "localhost/made:1", "-o", path)
        shutil.copy(path, saved)
        saved.chmod(0o644)
        engine.podman("rm", "it")
        engine.podman("rmi", "localhost/made:1")
        engine.podman("load", "-i", saved)
        run = ("run", "--rm", "--network=none", "localhost/made:1")
        assert engine.podman(*run).split() == ["1000"]
        assert engine.podman(*run, "/tmp/pwd").split() == ["/work/here/deeper"]


def write(tool: Tool, dockerfile: str, **files: str) -> Path:
    """Make a context; return it."""
    path = Path(tempfile.mkdtemp(dir=tool.base))
    (path / "Dockerfile").write_text(dockerfile)
    for name, content in files.items():
        (path / name.replace("__", ".")).write_text(content)
    for each in (path, *path.rglob("*")):
        os.chown(each, clients.UID, clients.UID)
    return path


def text_of(tool: Tool, name: str, path: str) -> bytes:
    content = exported(tool, name)[path][5]
    assert isinstance(content, bytes)
    return content


def cached(said: str) -> list[bool]:
    """Return for each step that was shown whether it came from the cache."""
    found: list[bool] = []
    for line in said.splitlines():
        if line.startswith("["):
            found.append(False)
        elif line == "  cached":
            found[-1] = True
    return found


class TestHeredocs:
    def test_scripts_files_and_variables_are_as_in_the_reference(self, tool: Tool) -> None:
        context = write(
            tool,
            f"""\
FROM {IMAGE}
ARG V=1
RUN <<END
echo "$V" > /one
echo two >> /one
END
RUN <<END
#!/bin/awk -f
BEGIN {{ print "from awk" > "/two" }}
END
RUN cat <<A > /three && cat <<"B" >> /three
$V
A
$V
B
COPY --chmod=600 <<plain <<"raw" /files/
v=$V \\$V
plain
v=$V
raw
""",
        )
        tool.run("build", "-q", "-t", "localhost/heredocs", context)
        tree = exported(tool, "localhost/heredocs")
        assert tree["one"][5] == b"1\ntwo\n"
        assert tree["two"][5] == b"from awk\n"
        assert tree["three"][5] == b"1\n$V\n"
        assert tree["files/plain"][5] == b"v=1 $V\n"
        assert tree["files/raw"][5] == b"v=$V\n"
        assert tree["files/raw"][1] == "0o600"
        assert "dev/pipes" not in tree


class TestScratch:
    def test_an_image_is_made_from_nothing(self, tool: Tool) -> None:
        context = write(tool, "FROM scratch\nCOPY a /sub/b\nWORKDIR /w\n", a="hello\n")
        context_id = tool.out("build", "-q", context)
        assert context_id.startswith("sha256:")
        tree = exported(tool, context_id)
        assert set(tree) == {"sub", "sub/b", "w"}
        assert tree["sub/b"][2:4] == (0, 0)


class TestModes:
    def test_setuid_and_sticky_bits_of_the_context_stay(self, tool: Tool) -> None:
        context = write(tool, f"FROM {IMAGE}\nCOPY --chown=user a /\n", a="x")
        (context / "a").chmod(0o6755)
        tool.run("build", "-q", "-t", "localhost/modes", context)
        assert exported(tool, "localhost/modes")["a"][1:4] == ("0o6755", 1000, 1000)


class TestCache:
    def test_what_has_not_changed_is_not_done_again(self, tool: Tool) -> None:
        context = write(
            tool,
            f"FROM {IMAGE}\nARG V=1\nRUN date +%N > /first\nCOPY a* /\nRUN date +%N > /second\n",
            a="1",
        )
        build = ("build", "-t", "localhost/cached", context)
        tool.run(*build)
        first = tool.run(*build)
        assert cached(first.stderr) == [False, False, True, True, True]
        os.utime(context / "a", (1, 1))
        touched = tool.run(*build)
        assert touched.stdout == first.stdout  # times are not content
        before = text_of(tool, "localhost/cached", "first")

        (context / "a").write_text("2")
        assert cached(tool.run(*build).stderr) == [False, False, True, False, False]
        assert text_of(tool, "localhost/cached", "first") == before

        (context / "a").write_text("1")
        assert tool.run(*build).stdout == first.stdout
        with_arg = tool.run(*build, "--build-arg", "V=2")
        assert cached(with_arg.stderr) == [False, False, False, False, False]
        assert cached(tool.run(*build, "--no-cache").stderr) == [False] * 5

    def test_it_outlives_gc_until_that_is_told_otherwise(self, tool: Tool) -> None:
        text = f"FROM {IMAGE} AS made\nRUN echo x > /made\nFROM {IMAGE}\nCOPY --from=made /made /\n"
        context = write(tool, text)
        build = ("build", "-t", "localhost/kept", context)
        tool.run(*build)
        tool.run("image", "rm", "localhost/kept")
        tool.run("image", "gc")
        assert cached(tool.run(*build).stderr) == [False, True, False, True]
        tool.run("image", "rm", "localhost/kept")
        tool.run("image", "gc", "--build-cache")
        assert cached(tool.run(*build).stderr) == [False, False, False, False]
        tool.run("image", "verify")


class TestReproducible:
    def test_source_date_epoch_gives_the_same_image_again(self, tool: Tool) -> None:
        context = write(
            tool,
            f"FROM {IMAGE}\nWORKDIR /w\nCOPY a .\nRUN mkdir b; echo 1 > b/c; rm /etc/group\n",
            a="x",
        )
        build = ("build", "-q", "--no-cache", "--build-arg", "SOURCE_DATE_EPOCH=1000000")
        first = tool.out(*build, context)
        os.utime(context / "a", (2_000_000, 2_000_000))
        assert tool.out(*build, context) == first
        found = json.loads(tool.out("image", "inspect", first))[0]
        assert found["created"] == "1970-01-12T13:46:40Z"


class TestOnbuild:
    def test_triggers_are_done_in_the_image_that_is_built_on_theirs(self, tool: Tool) -> None:
        base = write(
            tool, f"FROM {IMAGE}\nONBUILD COPY a /triggered\nONBUILD RUN echo b >> /triggered\n"
        )
        tool.run("build", "-q", "-t", "localhost/trigger", base)
        assert "triggered" not in exported(tool, "localhost/trigger")
        child = write(tool, "FROM localhost/trigger\n", a="a\n")
        tool.run("build", "-q", "-t", "localhost/child", child)
        assert text_of(tool, "localhost/child", "triggered") == b"a\nb\n"
        assert "OnBuild" not in inspected(tool, "localhost/child")


class TestErrors:
    @pytest.mark.parametrize(
        ("step", "said"),
        [
            ("RUN echo out; echo err >&2; exit 7", "Dockerfile:3: RUN"),
            ('RUN ["/no/such"]', "Dockerfile:3: RUN"),
            ("USER nobody-known\nRUN true", "Dockerfile:4: RUN: the image has no user"),
            ("COPY --chown=who a /", "Dockerfile:3: --chown=who: the image has no user"),
            ("COPY a /etc/passwd/x", "Dockerfile:3: /etc/passwd is there, and no directory"),
            ("COPY --from=localhost/none / /", "Dockerfile:3: COPY: no image"),
            (
                "ARG U=https://x/y\nADD $U /",
                "Dockerfile:4: ADD of https://x/y: URLs and git are not",
            ),
        ],
    )
    def test_a_step_that_fails_is_one_line_with_its_place(
        self, tool: Tool, step: str, said: str
    ) -> None:
        context = write(
            tool, f"FROM {IMAGE}\n\n{step}\n", a="", left__out="", __dockerignore="left.out\n"
        )
        done = tool.run("build", "-q", "-t", "localhost/failed", context, code=1)
        last = done.stderr.splitlines()[-1]
        assert said in last
        assert "Traceback" not in done.stderr
        assert done.stdout == ""
        tool.run("image", "inspect", "localhost/failed", code=1)

    def test_what_a_failed_step_has_said_is_shown_even_if_quiet(self, tool: Tool) -> None:
        context = write(tool, f"FROM {IMAGE}\nRUN echo out; echo err >&2; exit 7\n")
        done = tool.run("build", "-q", context, code=1)
        assert done.stderr.splitlines()[:2] == ["out", "err"]
        assert "exit code 7" in done.stderr

    def test_a_symlink_leads_nowhere_outside(self, tool: Tool) -> None:
        context = write(tool, f"FROM {IMAGE}\nRUN ln -s {tool.base} /out\nCOPY a /out/\n", a="x")
        tool.run("build", "-q", "-t", "localhost/out", context)
        assert not (tool.base / "a").exists()
        assert exported(tool, "localhost/out")[f"{str(tool.base)[1:]}/a"][5] == b"x"

    @pytest.mark.parametrize("group", [False, True])
    def test_a_build_that_is_killed_takes_its_step_with_it(self, tool: Tool, group: bool) -> None:
        step = "trap '' TERM HUP; echo begun; while :; do sleep 1; done"
        context = write(tool, f"FROM {IMAGE}\nRUN {step}\n")
        command = tool.command("build", "--no-cache", context)
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            start_new_session=True,
        ) as build:  # fmt: skip
            assert build.stderr is not None
            assert any(line.strip() == b"begun" for line in build.stderr)
            os.killpg(build.pid, signal.SIGKILL) if group else build.kill()
        containers.wait_for(lambda: not tool.processes())
        left = [name for name in os.listdir(tool.root / "tmp") if name.startswith("build-")]
        assert left == []

    def test_nothing_is_left_running_or_mounted(self, tool: Tool) -> None:
        assert tool.processes() == []
        assert str(tool.root) not in Path(f"/proc/{tool.house.pid}/mountinfo").read_text()
        left = [name for name in os.listdir(tool.root / "tmp") if name.startswith("build-")]
        assert left == []


class TestCommandLine:
    def test_a_dockerfile_may_come_from_elsewhere(self, tool: Tool) -> None:
        context = write(tool, "FROM none\n", a="x")
        other = write(tool, "", Other=f"FROM {IMAGE} AS one\nFROM one\nRUN exit 1\n")
        arguments = ("build", "--target", "one", "--iidfile", tool.base / "id")
        tool.run(*arguments, "-f", other / "Other", context)
        written = (tool.base / "id").read_text()
        piped = tool.run(*arguments, "-f", "-", context, stdin=f"FROM {IMAGE} AS one\n")
        assert piped.stdout == f"{written}\n"

    def test_an_argument_that_nothing_takes_is_told(self, tool: Tool) -> None:
        context = write(tool, f"FROM {IMAGE}\n")
        done = tool.run(
            "build", "--build-arg", "NONE=1", "--label", "a=b", "-t", "localhost/l", context
        )
        assert "--build-arg NONE" in done.stderr
        assert inspected(tool, "localhost/l")["Labels"] == {"a": "b"}
