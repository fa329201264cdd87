"""podman and buildah on `unionfuse-overlay`, as root and as a plain user.

What they make is compared with what they make on the kernel's overlayfs. On a mount program they
leave `.wh.` files and attributes of others in the store, so it is trees and lists of changes that
are compared, as users see them.
"""

from __future__ import annotations

import os
import subprocess
import tarfile
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.support import clients
from tests.support.commands import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.clients import Engine, House

pytestmark = [
    pytest.mark.clients,
    pytest.mark.fuse,
    pytest.mark.root,
    pytest.mark.once,
    pytest.mark.timeout(300),
]

IMAGE = "localhost/busybox:1"
RUN = ("run", "--rm", "--network=none")

# What a container does to the layers below it, of every kind.
CHANGES = """
set -e
echo new > /new; mkdir -p /dir/sub; echo x > /dir/sub/file; ln -s new /link; ln /new /hard
rm /etc/group; echo user2:x:5:5::/:/bin/sh >> /etc/passwd; chmod 600 /etc/passwd
chown 5:6 /root; rm -r /var/log; mkdir /var/log; echo again > /var/log/file
mv /usr /moved; touch -d @1000000000 /tmp/old; chmod 4755 /new; mkfifo /fifo
"""
CONTAINERFILE = f"""
FROM {IMAGE}
COPY file /copied
RUN mkdir /a && echo 1 > /a/one && echo 2 > /a/two && ln -s one /a/link
RUN rm /a/one && echo changed > /a/two && chown 3:4 /a
RUN rm -r /a && mkdir /a && echo three > /a/three && chmod 700 /a
"""


class Engines(NamedTuple):
    """The engines of one user: on our mount program, on fuse-overlayfs and on the kernel's."""

    ours: Engine
    originals: Engine
    kernels: Engine


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    with clients.temporary_house() as made:
        clients.mount_program(made.base)
        yield made


@pytest.fixture(scope="module", params=["root", "rootless"])
def engines(request: pytest.FixtureRequest, house: House) -> Iterator[Engines]:
    is_root = request.param == "root"
    tar = house.base / "busybox.tar"
    program = house.base / "unionfuse-overlay"
    with (
        clients.engine(house, f"{request.param}-1", is_root=is_root, program=program) as ours,
        clients.engine(
            house, f"{request.param}-2", is_root=is_root, program=clients.FUSE_OVERLAYFS
        ) as originals,
        clients.engine(house, f"{request.param}-3", is_root=is_root, program=None) as kernels,
    ):
        for engine in (ours, originals, kernels):
            engine.podman("import", "--quiet", tar, IMAGE)
        yield Engines(ours, originals, kernels)


@pytest.fixture
def ours(engines: Engines) -> Iterator[Engine]:
    """The engine on our mount program; it leaves nothing behind."""
    yield engines.ours
    engines.ours.podman("rm", "--all", "--force", "--time=0")
    wait_until(lambda: not engines.ours.daemons())
    assert engines.ours.mounts() == []


def listed(engine: Engine, tar: Path) -> dict[str, tuple[object, ...]]:
    """Return what is in a tar, by name, but for times of what the test has made."""
    with tarfile.open(tar) as archive:
        return {
            member.name: (
                member.type, member.mode, member.uid, member.gid, member.linkname,
                b"" if not member.isreg() else archive.extractfile(member).read(),
            )
            for member in archive
        }  # fmt: skip


class TestRun:
    def test_a_container_sees_the_image_and_keeps_changes_to_itself(self, ours: Engine) -> None:
        said = ours.podman(*RUN, IMAGE, "sh", "-c", "rm /bin/vi; echo x > /x; ls -d /x /bin/ls")
        assert said.split()[-2:] == ["/bin/ls", "/x"] or "/x" in said
        assert "/bin/vi" in ours.podman(*RUN, IMAGE, "ls", "/bin/vi")

    def test_it_is_mounted_by_us(self, ours: Engine) -> None:
        assert "unionfuse on / type fuse.unionfuse" in ours.podman(*RUN, IMAGE, "mount")

    def test_the_info_names_us(self, ours: Engine) -> None:
        assert "unionfuse-overlay: version" in ours.podman("info")

    def test_exec_stop_and_start(self, ours: Engine) -> None:
        ours.podman("run", "-d", "--network=none", "--name=c", IMAGE, "sleep", "100")
        ours.podman("exec", "c", "sh", "-c", "echo kept > /kept")
        ours.podman("stop", "--time=0", "c")
        ours.podman("start", "c")
        assert "kept" in ours.podman("exec", "c", "cat", "/kept")

    @pytest.mark.parametrize(
        ("option", "said"),
        [
            ("--user=1000", "1000 0:0"),
            ("--read-only", "0 0:0"),
            ("--privileged", "0 0:0"),
            ("--uidmap=0:1:1000", "0 0:0"),
            ("--userns=keep-id", f"{clients.UID} 0:0"),
            ("--userns=auto:size=1000", "0 0:0"),
            ("--userns=nomap", "0 0:0"),
        ],
    )
    def test_ids(self, ours: Engine, option: str, said: str) -> None:
        if ours.is_root and "userns" in option:
            option = "--uidmap=0:100000:1000"  # root has no ids of its own to keep
            said = "0 0:0"
        more = [] if not option.startswith("--uidmap") else [option.replace("uid", "gid")]
        script = "echo $(id -u) $(stat -c %u:%g /etc/passwd)"
        assert said in ours.podman(*RUN, option, *more, IMAGE, "sh", "-c", script)

    def test_what_a_mapped_root_makes_is_his(self, ours: Engine) -> None:
        first = 100_000 if ours.is_root else 1
        maps = [f"--uidmap=0:{first}:1000", f"--gidmap=0:{first}:1000"]
        script = "echo >> /etc/passwd; touch /new; chown 5:6 /new; stat -c %u:%g /new /etc/passwd"
        assert "5:6\n0:0" in ours.podman(*RUN, *maps, IMAGE, "sh", "-c", script)

    def test_volumes_with_an_overlay_of_their_own(self, ours: Engine) -> None:
        source = ours.base / "tmp" / "source"
        ours.run("mkdir", "-p", source)
        ours.run("sh", "-c", f"echo below > {source}/file")
        script = "echo above > /v/file; cat /v/file"
        assert "above" in ours.podman(*RUN, "-v", f"{source}:/v:O", IMAGE, "sh", "-c", script)
        assert "below" in ours.run("cat", source / "file").stdout

    def test_images_as_volumes(self, ours: Engine) -> None:
        for mode in ("rw=false", "rw=true"):
            volume = f"--mount=type=image,source={IMAGE},destination=/v,{mode}"
            assert "/v/bin/sh" in ours.podman(*RUN, volume, IMAGE, "ls", "/v/bin/sh")


class TestWhatTheyMake:
    def test_changes_and_trees_are_those_of_the_kernels_overlayfs(self, engines: Engines) -> None:
        seen = []
        for engine in engines:
            engine.podman("run", "--network=none", "--name=c", IMAGE, "sh", "-c", CHANGES)
            tar = engine.base / "tmp" / "exported.tar"
            engine.podman("export", "-o", tar, "c")
            engine.podman("commit", "--quiet", "c", "localhost/changed:1")
            engine.podman("create", "--network=none", "--name=d", "localhost/changed:1", "true")
            committed = engine.base / "tmp" / "committed.tar"
            engine.podman("export", "-o", committed, "d")
            diff = sorted(
                line for line in engine.podman("diff", "c").splitlines() if line[1:2] == " "
            )
            assert listed(engine, tar) == listed(engine, committed)
            seen.append((diff, listed(engine, tar)))
            engine.podman("rm", "--force", "c", "d")
        (our_diff, our_tree), (original_diff, _), (_, kernels_tree) = seen
        assert our_tree == kernels_tree
        # Without a mount program it reads the upper itself, and does not tell of every change.
        assert our_diff == original_diff

    def test_files_are_copied_in_and_out(self, ours: Engine) -> None:
        ours.podman("create", "--network=none", "--name=c", IMAGE, "true")
        file = ours.base / "tmp" / "copied"
        ours.run("sh", "-c", f"echo text > {file}")
        ours.podman("cp", file, "c:/etc/copied")
        ours.podman("cp", "c:/etc/copied", ours.base / "tmp" / "back")
        assert "text" in ours.run("cat", ours.base / "tmp" / "back").stdout

    def test_an_image_is_mounted(self, ours: Engine) -> None:
        enter = [] if ours.is_root else ["podman", "unshare"]
        script = f"d=$(podman image mount {IMAGE}); ls $d/bin/sh; podman image unmount {IMAGE}"
        assert "/bin/sh" in ours.run(*enter, "sh", "-c", script).stdout


class TestBuild:
    def test_layers_with_deletions_are_those_of_the_kernels_overlayfs(
        self, engines: Engines
    ) -> None:
        seen = []
        for engine in engines:
            context = engine.base / "tmp" / "context"
            engine.run("mkdir", "-p", context)
            engine.run("sh", "-c", f"echo file > {context}/file")
            engine.run("sh", "-c", f"cat > {context}/Containerfile <<'E'{CONTAINERFILE}E")
            arguments = ("build", "--layers", "--network=host", "-t", "localhost/built:1", context)
            engine.podman(*arguments)
            engine.podman("create", "--network=none", "--name=b", "localhost/built:1", "true")
            tar = engine.base / "tmp" / "built.tar"
            engine.podman("export", "-o", tar, "b")
            engine.podman("rm", "b")
            seen.append(listed(engine, tar))
        assert seen[0] == seen[1] == seen[2]
        assert "a/three" in seen[0]
        assert "a/two" not in seen[0]

    def test_buildah(self, ours: Engine) -> None:
        enter = [] if ours.is_root else ["buildah", "unshare"]
        script = f"""
            set -e
            c=$(buildah from {IMAGE}); buildah run $c sh -c 'echo built > /built; rm /bin/vi'
            m=$(buildah mount $c); cat $m/built; test ! -e $m/bin/vi; echo more > $m/more
            buildah umount $c; buildah commit --quiet $c localhost/buildah:1; buildah rm $c
        """
        assert "built" in ours.run(*enter, "sh", "-c", script).stdout
        assert "more" in ours.podman(*RUN, "localhost/buildah:1", "cat", "/more")


COMPILERFILE = r"""
FROM localhost/debian:1
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev python3-minimal
COPY hello.c /src/hello.c
RUN gcc -O1 -o /usr/local/bin/hello /src/hello.c && rm -r /src
CMD ["hello"]
"""
HELLO = r"""
#include <stdio.h>
int main(void) { puts("compiled in the image"); return 0; }
"""


@pytest.mark.long
@pytest.mark.timeout(900)
class TestCompilers:
    def test_an_image_with_gcc_and_python_is_built_and_used(self, house: House) -> None:
        """A Debian with packages of hundreds of files each, in layers that podman commits."""
        tar = house.base / "debian.tar"
        make = ["mmdebstrap", "--mode=root", "--variant=apt", "bookworm", tar]
        subprocess.run(make, check=True, timeout=400, capture_output=True)
        tar.chmod(0o644)
        program = house.base / "unionfuse-overlay"
        with clients.engine(house, "compilers", is_root=False, program=program) as engine:
            context = engine.base / "tmp" / "context"
            engine.run("mkdir", "-p", context)
            engine.run("sh", "-c", f"cat > {context}/hello.c <<'E'{HELLO}E")
            engine.run("sh", "-c", f"cat > {context}/Containerfile <<'E'{COMPILERFILE}E")
            engine.podman("import", "--quiet", tar, "localhost/debian:1")
            build = ("build", "--layers", "--network=host", "-t", "localhost/compilers:1", context)
            engine.podman(*build, timeout=600)
            assert "compiled in the image" in engine.podman(*RUN, "localhost/compilers:1")
            script = "print(sum(range(10)))"
            said = engine.podman(*RUN, "localhost/compilers:1", "python3", "-c", script)
            assert "45" in said
            check = ("dpkg", "--verify", "gcc-12", "python3.11-minimal", "libc6-dev")
            assert engine.podman(*RUN, "localhost/compilers:1", *check).strip() == ""
        tar.unlink()


class TestMany:
    @pytest.mark.timeout(900)
    def test_containers_in_a_row_leave_nothing(self, ours: Engine) -> None:
        for _ in range(int(os.environ.get("UNIONFUSE_TEST_CONTAINERS", "10"))):
            ours.podman(*RUN, IMAGE, "true")
        wait_until(lambda: not ours.daemons())
        assert ours.mounts() == []
        assert ours.servers()  # while more could come; they do not
        wait_until(lambda: not ours.servers(), seconds=30)


class TestOtherStores:
    def test_a_store_goes_over_from_fuse_overlayfs_and_back(self, house: House) -> None:
        """Both read what the other has written: containers, stopped and started, and images."""
        program = house.base / "unionfuse-overlay"
        with clients.engine(house, "over", is_root=False, program=clients.FUSE_OVERLAYFS) as engine:
            engine.podman("import", "--quiet", house.base / "busybox.tar", IMAGE)
            script = "cat /kept; echo more >> /kept; rm -f /bin/vi; ls /bin/vi"
            create = ("run", "--network=none", "--name=c", IMAGE, "sh", "-c", script)
            engine.podman(*create, check=False)
            for count, which in enumerate((program, clients.FUSE_OVERLAYFS, program), 1):
                clients.use_program(engine, which)
                said = engine.podman("start", "--attach", "c", check=False)
                assert said.count("more") == count, said
                assert "/bin/vi: No such file" in said
                engine.podman("commit", "--quiet", "c", f"localhost/over:{count}")
                image = f"localhost/over:{count}"
                assert "more" in engine.podman(*RUN, image, "cat", "/kept")

    @pytest.mark.parametrize("form", ["overlayfs", "userxattr"])
    def test_a_converted_store_goes_over_to_the_kernels_overlayfs(
        self, house: House, form: str
    ) -> None:
        program = house.base / "unionfuse-overlay"
        tool = clients.make_program(house.base, "unionfuse")
        is_root = form == "overlayfs"
        with clients.engine(house, f"to-{form}", is_root=is_root, program=program) as engine:
            engine.podman("import", "--quiet", house.base / "busybox.tar", IMAGE)
            engine.run("sh", "-c", f"printf 'FROM {IMAGE}\nRUN rm /bin/vi\n' > tmp/Containerfile")
            engine.podman("build", "--quiet", "-t", "localhost/less:1", engine.base / "tmp")
            script = (
                "rm -r /var/log; mkdir /var/log; echo x > /kept; ls -d /bin/vi /var/log/* /kept"
            )
            create = ("run", "--network=none", "--name=c", "localhost/less:1", "sh", "-c", script)
            engine.podman(*create, check=False)
            wait_until(lambda: not engine.daemons())
            convert = f"""
                set -e
                cd graph/overlay
                for layer in [0-9a-f]*/; do
                    {tool} convert --to {form} --workdir "$layer/work" "$layer/diff"
                done
                rm .has-mount-program
            """
            engine.run(*([] if is_root else ["podman", "unshare"]), "sh", "-c", convert)
            clients.use_program(engine, None)
            said = engine.podman(
                *RUN, "localhost/less:1", "sh", "-c", "mount; ls /bin/.wh* /bin/vi", check=False
            )
            assert said.startswith("overlay on / type overlay (")
            assert said.count("No such file") == 2
            again = engine.podman("start", "--attach", "c", check=False)
            assert "/kept" in again
            assert again.count("No such file") == 2

    def test_force_mask_keeps_owners_in_attributes(self, house: House) -> None:
        with clients.engine(
            house, "masked", is_root=False, program=house.base / "unionfuse-overlay",
            more='force_mask = "shared"',
        ) as engine:  # fmt: skip
            engine.podman("import", "--quiet", house.base / "busybox.tar", IMAGE)
            script = (
                "touch /new; chown 5:6 /new; chmod 640 /new; stat -c '%u:%g %a' /new /etc/passwd"
            )
            said = engine.podman(*RUN, IMAGE, "sh", "-c", script)
            assert "5:6 640\n0:0 644" in said


def test_programs_are_there() -> None:
    """What these tests need is in tools/setup."""
    for program in ("podman", "buildah", "crun", "newuidmap", "fuse-overlayfs"):
        assert subprocess.run(["which", program], check=False, capture_output=True).returncode == 0
