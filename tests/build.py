"""Build a real Debian image as podman does, and compare: python -m tests.build [--user]

Two images: a Python program on packages that apt installs, and a C program from a stage with a
compiler. Each is built by unionfuse and by podman from the same base and the same context; the
trees have to be the same but for what differs in every installation (logs, caches with times in
them), and the images have to run under podman and under unionfuse. As root; takes some minutes and
needs a Debian mirror.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tarfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support import clients, containers

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.clients import Engine
    from tests.support.containers import Tool

BASE = "localhost/debian:12"
SECONDS = 900.0
APP = """\
FROM localhost/debian:12
ARG DEBIAN_FRONTEND=noninteractive
RUN apt-get update && \\
    apt-get install -y --no-install-recommends python3-minimal && \\
    rm -rf /var/lib/apt/lists/*
RUN useradd --create-home --uid 1000 app
USER app
WORKDIR /app
COPY --chown=app app/ .
ENV GREETING=hello PYTHONDONTWRITEBYTECODE=1
EXPOSE 8080/tcp
ENTRYPOINT ["python3", "main.py"]
CMD ["world"]
"""
NATIVE = """\
FROM localhost/debian:12 AS build
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev
WORKDIR /src
COPY hello.c .
RUN gcc -O2 -static -Wl,--build-id=none -o hello hello.c && strip hello

FROM scratch
COPY --from=build /src/hello /hello
ENTRYPOINT ["/hello"]
"""
FILES = {
    "app/main.py": "import os, sys\nfrom words import shout\n"
    "print(os.environ['GREETING'], shout(sys.argv[1]), os.getuid(), os.getcwd())\n",
    "app/words.py": "def shout(text):\n    return text.upper() + '!'\n",
    "app/data/numbers": "1\n2\n3\n",
    "hello.c": '#include <stdio.h>\nint main(void) { puts("hello from C"); return 0; }\n',
    ".dockerignore": "**/*.tmp\n",
    "app/left.tmp": "not in the image\n",
    "app.Dockerfile": APP,
    "native.Dockerfile": NATIVE,
}
# What every installation writes anew, and the files that an engine itself puts in.
DIFFERS = (
    "var/log/", "var/cache/ldconfig/aux-cache", "var/cache/debconf/",
    "var/cache/apt/", "run/.containerenv",
    "etc/hostname", "etc/hosts", "etc/resolv.conf",
)  # fmt: skip
# useradd writes the day of the change here.
IGNORED_CONTENT = ("etc/shadow", "etc/shadow-")


def listed(path: Path) -> dict[str, tuple[object, ...]]:
    """Return what is in a tar, by name, without times."""
    found: dict[str, tuple[object, ...]] = {}
    links: dict[str, str] = {}
    with tarfile.open(path) as archive:
        for member in archive:
            name = member.name.removeprefix("./").strip("/")
            if not name or name == "." or name.startswith(DIFFERS):
                continue
            if member.islnk():
                links[name] = member.linkname.removeprefix("./")
                continue
            file = archive.extractfile(member) if member.isreg() else None
            content = b"" if file is None or name in IGNORED_CONTENT else file.read()
            found[name] = (
                member.type, oct(member.mode & 0o7777), member.uid, member.gid, member.linkname,
                (member.devmajor, member.devminor), content,
            )  # fmt: skip
    # which name of a hard link comes first is up to who writes the tar
    for name, first in links.items():
        found[name] = found[first]
    return found


def timed(what: str, work: Callable[[], object]) -> None:
    """Do something, and print how long it took."""
    begun = time.monotonic()
    work()
    print(f"  {what}: {time.monotonic() - begun:.1f} s", flush=True)


def build_both(tool: Tool, engine: Engine, context: Path, name: str) -> None:
    """Build one image twice, compare, and run it."""
    image = f"localhost/{name}:1"
    file = context / f"{name}.Dockerfile"
    print(f"{name}:", flush=True)
    ours = tool.command("build", "-t", image, "-f", file, context)
    timed("unionfuse build", lambda: checked(ours))
    timed("unionfuse build, again", lambda: checked(ours))
    theirs = ("build", "--network=host", "--format", "docker", "-t", image, "-f", file, context)
    timed("podman build", lambda: engine.podman(*theirs, timeout=SECONDS))
    engine.podman("create", "--name", name, image)
    engine.podman("export", name, "-o", engine.base / "theirs.tar", timeout=SECONDS)
    tool.run("image", "export", image, "-o", tool.base / "ours.tar")
    own, their = listed(tool.base / "ours.tar"), listed(engine.base / "theirs.tar")
    if not tool.is_root:
        # Devices that no user can make: empty files stand for them in our layers.
        own, their = (
            {path: entry for path, entry in tree.items() if not path.startswith("dev/")}
            for tree in (own, their)
        )
    # mountpoints that an engine makes in an image that lacks them
    if name == "native":
        their = {path: entry for path, entry in their.items() if path in own}
    differing = [path for path in sorted({*own, *their}) if own.get(path) != their.get(path)]
    for path in differing[:20]:
        print(f"  differs: {path}\n    {own.get(path)!s:.200}\n    {their.get(path)!s:.200}")
    assert not differing, f"{len(differing)} of {len(own)} names differ"
    print(f"  the same tree: {len(own)} names", flush=True)

    expected = engine.podman("run", "--rm", "--network=none", image)
    assert tool.out("run", "--rm", image) == expected.rstrip("\n"), expected
    tool.run("image", "save", image, "-o", tool.base / "saved.tar")
    shutil.move(tool.base / "saved.tar", engine.base / "saved.tar")
    (engine.base / "saved.tar").chmod(0o644)
    engine.podman("rm", name)
    engine.podman("rmi", image)
    engine.podman("load", "-i", engine.base / "saved.tar", timeout=SECONDS)
    assert engine.podman("run", "--rm", "--network=none", image) == expected
    print(f"  runs under both: {expected.strip()!r}", flush=True)
    history = json.loads(tool.out("image", "inspect", image))[0]["config"]["history"]
    assert history[-1]["created_by"].startswith(("CMD", "ENTRYPOINT"))


def checked(command: list[str]) -> None:
    """Run a command."""
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS
    )
    assert done.returncode == 0, done.stdout + done.stderr


def main() -> None:
    """Build both images as one user."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--user", action="store_true", help="as a plain user")
    parser.add_argument("--base", type=Path, help="a tar of a Debian 12 instead of a new one")
    arguments = parser.parse_args()
    is_root = not arguments.user
    with (
        clients.temporary_house() as house,
        containers.tool(house, "tool", is_root=is_root) as tool,
        clients.engine(house, "podman", is_root=is_root, program=None) as engine,
    ):
        debian = arguments.base or house.base / "debian.tar"
        if arguments.base is None:
            command = ["mmdebstrap", "--variant=minbase", "--mode=root", "bookworm", str(debian)]
            timed("mmdebstrap", lambda: checked(command))
        context = house.base / "context"
        for name, content in FILES.items():
            (context / name).parent.mkdir(parents=True, exist_ok=True)
            (context / name).write_text(content)
        checked(["chmod", "-R", "a+rX", str(context), str(debian)])
        tool.run("image", "import", debian, BASE, "--cmd", "bash")
        engine.podman("import", "-q", "--change", 'CMD ["bash"]', debian, BASE, timeout=SECONDS)
        for name in ("native", "app"):
            build_both(tool, engine, context, name)


if __name__ == "__main__":
    main()
