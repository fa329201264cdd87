"""Without root a union works as well: in a user namespace, and through fusermount3.

Each test is a shell script that runs without a single right of root; what it leaves on the disk is
then looked at from outside.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import stat
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.support.commands import command
from tests.support.mounts import Layers, daemon_pids, public_directory
from tests.support.programs import identities
from tests.support.sessions import KERNEL_AUTO, PYFUSE3, session_option
from tests.support.users import NOBODY, as_plain_user, in_user_namespace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.fuse,
    pytest.mark.timeout(60),
    pytest.mark.sessions(PYFUSE3, KERNEL_AUTO),  # only root may let data go past the daemon
]

WAYS: dict[str, tuple[Callable[[], list[str]], bool]] = {
    # how a command is run, and whether it sees itself as root
    "root in a user namespace": (in_user_namespace, True),
    "a plain user in a user namespace": (lambda: [*as_plain_user(), *in_user_namespace()], True),
    "a plain user with fusermount3": (as_plain_user, False),
}


@dataclass(frozen=True)
class Rootless:
    """A union that is mounted without root."""

    layers: Layers
    uid: int  # outside
    seems_root: bool
    prefix: list[str]

    def run(self, script: str, *, fails: bool = False) -> str:
        """Run a shell script beside the layers and return what it prints.

        It can use `mount_union`, `umount_union`, `snapshot DIRECTORY`; the first command that fails
        ends it.
        """
        layers = self.layers
        # by its full path a daemon that is left is found
        union = f"lower1:lower2 upper {layers.mnt}"
        python, session = shlex.quote(sys.executable), " ".join(session_option())
        snapshot = "from tests.support.tree import snapshot; from pathlib import Path; import sys"
        shown = "snapshot(Path(sys.argv[1]), times='none', private_xattrs=False, entry_inos=False)"
        beginning = f"""
cd {layers.mnt.parent}
trap '{{ umount -l mnt || fusermount3 -uz mnt || true; }} 2>/dev/null' EXIT
unionfuse() {{ {python} -m unionfuse "$@"; }}
mount_union() {{ unionfuse mount {session} --log log --workdir work "$@" {union}; }}
umount_union() {{ unionfuse umount mnt; }}
snapshot() {{ {python} -c "{snapshot}
for name, record in sorted({shown}.items()):
    print(name, *vars(record).items(), sep='\\n  ')" "$1"; }}
"""
        done = command("sh", "-euc", beginning + script, prefix=self.prefix, timeout=50)
        assert (done.returncode != 0) == fails, f"{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr if fails else done.stdout

    def own(self, *paths: Path) -> None:
        """Give everything below `paths` to the user who mounts."""
        for path in paths:
            for name in (path, *path.rglob("*")):
                os.lchown(name, self.uid, self.uid)


@pytest.fixture
def layers() -> Iterator[Layers]:
    with public_directory() as base:
        layers = Layers.create(base / "union", 2)
        yield layers
        # what a script that failed has left in its namespace
        for pid in daemon_pids(layers.mnt):
            os.kill(pid, signal.SIGKILL)


PLAIN = [pytest.param(way, marks=pytest.mark.root) for way in WAYS if "plain" in way]
NAMESPACE = pytest.param("root in a user namespace", marks=pytest.mark.userns)


@pytest.fixture(params=[NAMESPACE, *PLAIN])
def rootless(request: pytest.FixtureRequest, layers: Layers) -> Rootless:
    """Make a union of some files that belong to the user who mounts."""
    make_prefix, seems_root = WAYS[request.param]
    uid = NOBODY if "plain" in request.param else os.geteuid()
    for number, lower in enumerate(layers.lowers):
        (lower / "directory").mkdir()
        for name in ("same", f"of-{number}"):
            (lower / "directory" / name).write_text(f"{name} {number}\n")
        (lower / f"file-{number}").write_text(f"{number}\n")
        (lower / f"opaque-{number}").mkdir()
        (lower / f"opaque-{number}" / "below").touch()
    os.link(layers.lowers[0] / "file-0", layers.lowers[0] / "link")
    (layers.lowers[0] / "symlink").symlink_to("file-0")
    os.mkfifo(layers.lowers[0] / "fifo")
    os.setxattr(layers.lowers[0] / "file-0", "user.kept", b"1")
    union = Rootless(layers, uid, seems_root, make_prefix())
    union.own(layers.mnt.parent)
    return union


CHANGES = """
echo appended >> mnt/directory/same
echo new > mnt/directory/new
rm mnt/directory/of-1
mv mnt/file-1 mnt/directory/moved
rm -r mnt/opaque-0; mkdir mnt/opaque-0; echo n > mnt/opaque-0/new
rm -r mnt/opaque-1
chmod 600 mnt/file-0
setfattr -n user.added -v 2 mnt/link
touch -h -d @1000 mnt/symlink
chmod 640 mnt/fifo
mkdir -p mnt/a/b/c; ln -s c mnt/a/b/l; ln mnt/directory/new mnt/a/hard
mv mnt/a mnt/moved
"""

AFTER = """\
/
/directory/
/directory/moved
/directory/new
/directory/of-0
/directory/same
/fifo
/file-0
/link
/moved/
/moved/b/
/moved/b/c/
/moved/b/l
/moved/hard
/opaque-0/
/opaque-0/new
/symlink
"""
LIST = r"""find mnt -mindepth 0 \( -type d -printf '/%P/\n' -o -printf '/%P\n' \) |
    sed 's,^//,/,' | LC_ALL=C sort"""


class TestBasics:
    def test_the_layers_are_united(self, rootless):
        shown = rootless.run("mount_union; cat mnt/directory/*; cat mnt/link; umount_union")
        assert shown == "of-0 0\nof-1 1\nsame 0\n0\n"

    def test_changes_go_to_the_upper_and_are_there_after_a_remount(self, rootless):
        before = [identities(lower) for lower in rootless.layers.lowers]
        shown = rootless.run(f"""
mount_union {CHANGES} {LIST}; umount_union
mount_union; {LIST}; cat mnt/directory/same mnt/directory/moved; umount_union
""")
        assert shown == AFTER + AFTER + "same 0\nappended\n1\n"
        assert [identities(lower) for lower in rootless.layers.lowers] == before
        assert os.listdir(rootless.layers.work / "work") == []

    def test_attributes_links_and_times_are_those_that_were_set(self, rootless):
        rootless.run(f"""
mount_union {CHANGES}
test "$(stat -c %a:%h mnt/file-0 mnt/fifo | xargs)" = "600:2 640:1"
test "$(stat -c %i mnt/file-0)" = "$(stat -c %i mnt/link)"
test "$(getfattr --only-values -n user.kept mnt/link)" = 1
test "$(getfattr --only-values -n user.added mnt/file-0)" = 2
test "$(stat -c %Y mnt/symlink)" = 1000
test "$(stat -c %h mnt/moved/hard)" = 2
umount_union
""")

    def test_what_is_made_belongs_to_the_user(self, rootless):
        rootless.run("mount_union; touch mnt/new; mkdir mnt/made; echo >> mnt/file-1; umount_union")
        for name in ("new", "made", "file-1"):
            status = (rootless.layers.upper / name).stat()
            assert (status.st_uid, status.st_gid) == (rootless.uid, rootless.uid)

    def test_deleted_names_are_marked_without_root(self, rootless):
        rootless.run("mount_union; rm mnt/file-1; rm -r mnt/opaque-0; mkdir mnt/opaque-0;"
                     "umount_union")  # fmt: skip
        upper = rootless.layers.upper
        whiteout = (upper / "file-1").lstat()
        assert (stat.S_IFMT(whiteout.st_mode), whiteout.st_rdev) == (stat.S_IFCHR, 0)
        assert os.getxattr(upper / "opaque-0", "user.overlay.opaque") == b"y"

    @pytest.mark.parametrize(
        "form", ["char", "file", "opaque in user.overlay", "opaque in user.fuseoverlayfs", "opq"]
    )
    def test_every_form_of_a_mark_is_understood(self, rootless, form):
        lower = rootless.layers.lowers[0]
        (lower / "opaque-1").mkdir()
        match form:
            case "char":
                if os.geteuid() != 0:
                    pytest.skip("a whiteout is made by root here")
                os.mknod(lower / "directory" / "of-1", stat.S_IFCHR, 0)
            case "file":
                (lower / "directory" / ".wh.of-1").touch()
            case "opq":
                (lower / "opaque-1" / ".wh..wh..opq").touch()
            case _:
                os.setxattr(lower / "opaque-1", f"{form.removeprefix('opaque in ')}.opaque", b"y")
        rootless.own(lower)
        shown = rootless.run("mount_union; ls -A mnt/directory mnt/opaque-1; umount_union")
        gone = ("of-1", "below") if form in ("char", "file") else ("below", "of-1")
        assert gone[0] not in shown.split()
        assert gone[1] in shown.split()

    def test_no_mark_shows(self, rootless):
        shown = rootless.run(f"mount_union {CHANGES} getfattr -R -h -d -m - mnt; umount_union")
        assert "user.kept" in shown
        assert "overlay" not in shown

    def test_a_marks_name_is_refused(self, rootless):
        rootless.run("""
mount_union
! setfattr -n user.fuseoverlayfs.opaque -v y mnt/directory 2>/dev/null
! mknod mnt/device c 0 0 2>/dev/null
umount_union
""")

    def test_it_is_mounted_read_only(self, rootless):
        shown = rootless.run("""
unionfuse mount --read-only lower1:lower2 $PWD/mnt
cat mnt/directory/same
! touch mnt/new 2>/dev/null
unionfuse umount mnt
""")
        assert shown == "same 0\n"


class TestCommands:
    def test_ls_shows_the_mount_and_only_while_it_is_there(self, rootless):
        shown = rootless.run("mount_union; unionfuse ls; umount_union; unionfuse ls")
        layers = rootless.layers
        lines = [line.strip() for line in shown.splitlines()]
        begin = lines.index(str(layers.mnt))
        assert lines[begin + 1 : begin + 5] == [
            *(f"lower    {lower}" for lower in layers.lowers),
            f"upper    {layers.upper}",
            f"workdir  {layers.work}",
        ]
        assert lines.count(str(layers.mnt)) == 1

    def test_umount_waits_for_the_daemon_and_the_upper_is_free_at_once(self, rootless):
        rootless.run("for n in 1 2 3 4 5; do mount_union; touch mnt/$n; umount_union; done")
        assert len(os.listdir(rootless.layers.upper)) == 5

    def test_a_mount_in_use_is_kept_and_a_lazy_unmount_takes_it(self, rootless):
        shown = rootless.run("""
mount_union
exec 3> mnt/open
if unionfuse umount mnt 2> message; then exit 9; fi
test $(wc -l < message) = 1
cat message
unionfuse umount --lazy mnt
ls -A mnt
echo end >&3
exec 3>&-
""")
        assert "mnt: " in shown
        assert (rootless.layers.upper / "open").read_text() == "end\n"

    def test_a_killed_daemon_is_cleaned_up(self, rootless):
        rootless.run("""
mount_union
kill -9 $(unionfuse ls --json | grep -o '"pid": [0-9]*' | tail -n 1 | cut -d ' ' -f 2)
! ls mnt 2>/dev/null
unionfuse ls | grep -A 1 "^$PWD/mnt$" | grep -q dead
unionfuse umount --lazy mnt
mount_union
ls mnt
umount_union
""")

    def test_an_unmounted_directory_is_no_mount(self, rootless):
        said = rootless.run("unionfuse umount mnt", fails=True)
        assert said == "unionfuse: mnt: no unionfuse mount there\n"

    def test_others_may_be_let_in_only_as_fuse_conf_says(self, rootless):
        if rootless.seems_root:
            rootless.run("mount_union -o allow_other; umount_union")
        else:
            said = rootless.run("mount_union -o allow_other", fails=True)
            assert said.count("\n") == 1
            assert "user_allow_other" in said


# for root in a namespace the files of root are his own
@pytest.mark.parametrize("rootless", PLAIN, indirect=True)
class TestOtherOwners:
    @pytest.fixture
    def foreign(self, rootless: Rootless) -> Rootless:
        """Add files of real root to the lower."""
        lower = rootless.layers.lowers[0]
        for name, mode in (("private", 0o600), ("public", 0o644), ("open", 0o666)):
            (lower / name).write_text(f"{name}\n")
            (lower / name).chmod(mode)
        (lower / "closed").mkdir()
        (lower / "closed" / "file").write_text("closed\n")
        (lower / "closed").chmod(0o755)
        return rootless

    def test_their_files_are_read_as_the_mode_says(self, foreign):
        shown = foreign.run("""
mount_union
cat mnt/public mnt/open mnt/closed/file
! cat mnt/private 2>/dev/null
umount_union
""")
        assert shown == "public\nopen\nclosed\n"

    def test_their_files_are_not_written_where_the_mode_does_not_allow_it(self, foreign):
        foreign.run("""
mount_union
! echo x 2>/dev/null >> mnt/public
! touch mnt/closed/new 2>/dev/null
! chmod 666 mnt/public 2>/dev/null
test -f mnt/public
test -f mnt/closed/file
umount_union
""")
        assert os.listdir(foreign.layers.upper) == []

    def test_they_are_removed_where_the_directory_allows_it(self, foreign):
        # In a namespace the kernel refuses to remove what belongs to an owner it cannot name.
        expected = "kept" if foreign.seems_root else "gone"
        shown = foreign.run("""
mount_union
rm -f mnt/public 2>/dev/null || true
if test -e mnt/public; then echo kept; else echo gone; fi
umount_union
""")
        assert shown == f"{expected}\n"

    def test_nothing_of_the_lowers_changes(self, foreign):
        before = [identities(lower) for lower in foreign.layers.lowers]
        foreign.run("""
mount_union
rm -rf mnt/public mnt/closed mnt/directory 2>/dev/null || true
chmod -R 777 mnt 2>/dev/null || true
umount_union
""")
        assert [identities(lower) for lower in foreign.layers.lowers] == before


class TestOtherPrograms:
    """An upper that was written without root is understood by overlayfs and fuse-overlayfs."""

    @pytest.fixture(autouse=True)
    def _without_hard_links(self, rootless: Rootless) -> None:
        """Part two names of one file: without an index the others break such links."""
        first, link = (rootless.layers.lowers[0] / name for name in ("file-0", "link"))
        link.unlink()
        shutil.copy2(first, link)
        rootless.own(link)

    @pytest.fixture
    def in_namespace(self, rootless: Rootless) -> Rootless:
        """Return the same union, for which other programs are run in a user namespace."""
        if rootless.seems_root:
            return rootless
        prefix = [*rootless.prefix, *in_user_namespace()]
        return Rootless(rootless.layers, rootless.uid, True, prefix)

    @pytest.mark.parametrize("program", ["overlayfs", "fuse-overlayfs"])
    def test_it_shows_the_same_tree(self, rootless, in_namespace, program):
        lowers = "lowerdir=lower1:lower2,upperdir=upper,workdir=other"
        other = {
            "overlayfs": f"mount -t overlay -o userxattr,{lowers} overlay mnt",
            "fuse-overlayfs": f"fuse-overlayfs -o {lowers} mnt",
        }[program]
        rootless.run(f"mount_union {CHANGES} umount_union; mkdir other")
        # both are seen by the same eyes: owners have other numbers in a namespace
        ours = in_namespace.run("mount_union; snapshot mnt; umount_union")
        theirs = in_namespace.run(f"{other}; snapshot mnt; umount mnt")
        assert theirs == ours

    @pytest.mark.parametrize("program", ["overlayfs", "fuse-overlayfs"])
    def test_what_they_wrote_is_understood_by_us(self, rootless, in_namespace, program):
        lowers = "lowerdir=lower1:lower2,upperdir=upper,workdir=other"
        other = {
            "overlayfs": f"mount -t overlay -o userxattr,{lowers} overlay mnt",
            "fuse-overlayfs": f"fuse-overlayfs -o {lowers} mnt",
        }[program]
        rootless.run("mkdir other")
        changes = CHANGES
        if program == "fuse-overlayfs":
            changes = changes.replace("chmod 640 mnt/fifo", "")  # an error there, up to 1.17
        theirs = in_namespace.run(f"{other}; {changes} snapshot mnt; umount mnt")
        ours = in_namespace.run("mount_union; snapshot mnt; umount_union")
        assert ours == theirs
        assert rootless.run(f"mount_union; {LIST}; umount_union") == AFTER
