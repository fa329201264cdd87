"""What to mount: layers, mount options, and how to serve them."""

from __future__ import annotations

from unionfuse.record import field, record
from unionfuse.syscalls import mount as sys_mount

DEFAULT_POLL_US = 100
DEFAULT_TIMEOUT = 1e9  # seconds: the daemon is the only one that changes what it serves

Ids = tuple[tuple[int, int, int], ...]  # of ids on disk: first, the one it is shown as, how many


@record
class MountOptions:
    """The words of `-o`.

    Attributes:
        flags: of mount(2).
        words: the words that gave the flags, for fusermount3.
        allow_other: whether other users may use the mount; None: whether we are root.
        fsync: auto or strict, as overlayfs has them; volatile, and 0, which leaves no mark of that.
        writeback: whether the kernel gathers writes where it caches data; None: with `--io cached`.
        timeout: seconds for which the kernel may keep names and attributes.
        fsname: the source that the mount table shows.
        subtype: its type there is `fuse.SUBTYPE`.
        metacopy, redirect_dir, index, xino, nfs_export: see `union.state.Options`.
        short_ino, static_nlink: see there, too.
        session, io: None where no word says it; see `MountPlan`.
        debug: log more, and stay in the foreground.
        context: label that SELinux gives to all files.
        acl: whether there are POSIX ACLs.
        xattrs: whether there are extended attributes.
        uids, gids: how ids of the disk are shown; empty: as they are.
        squash_uid, squash_gid: the one id that is shown of all.
        squash_root: it is 0, where those do not say otherwise.
        override: 1 or 2: owners and modes are kept in an attribute, `union.override`; else 0.
    """

    flags: int = 0
    words: tuple[str, ...] = ()
    allow_other: bool | None = None
    fsync: str = "auto"
    writeback: bool | None = None
    timeout: float = DEFAULT_TIMEOUT
    fsname: str = "unionfuse"
    subtype: str = "unionfuse"
    metacopy: bool | None = None
    redirect_dir: str | None = None
    index: bool = True
    xino: str = "auto"
    nfs_export: bool = False
    short_ino: bool = False
    static_nlink: bool = False
    session: str | None = None
    io: str | None = None
    debug: bool = False
    context: str | None = None
    acl: bool = True
    xattrs: bool = True
    uids: Ids = ()
    gids: Ids = ()
    squash_uid: int | None = None
    squash_gid: int | None = None
    squash_root: bool = False
    override: int = 0

    @property
    def volatile(self) -> bool:
        """Whether nothing is written to disk for safety's sake."""
        return self.fsync in ("volatile", "0")

    @property
    def shown_uid(self) -> int | None:
        """The one uid that is shown of all, if there is one."""
        return 0 if self.squash_uid is None and self.squash_root else self.squash_uid

    @property
    def shown_gid(self) -> int | None:
        """The one gid that is shown of all, if there is one."""
        return 0 if self.squash_gid is None and self.squash_root else self.squash_gid

    @property
    def read_only(self) -> bool:
        """Whether the mount is read-only."""
        return bool(self.flags & sys_mount.MS_RDONLY)


@record
class MountPlan:
    """A mount to be made. All paths are absolute.

    Attributes:
        lowers: topmost first.
        upper, workdir: None for a read-only union.
        session: auto, pyfuse3 or kernel.
        io: auto, cached or passthrough; how the kernel session serves data.
        poll_us: microseconds for which the kernel session looks for the next request before it
            sleeps; 0: none.
        log: file to log to; None for the system's log.
        returns: when the command returns: `mounted`, and whoever uses the mount waits in the kernel
            until the daemon has got ready; `serving`; or `settled`: it reads no file of its own
            any more, so that the union may become its root.
        lock_seconds: how long to wait for another mount to let go of upper and workdir.
        kept_fds: descriptors that stay open as long as the mount is served.
    """

    lowers: tuple[bytes, ...]
    upper: bytes | None
    workdir: bytes | None
    mountpoint: bytes
    session: str = "auto"
    io: str = "auto"
    poll_us: int = DEFAULT_POLL_US
    options: MountOptions = field(default_factory=MountOptions)
    debug: bool = False
    foreground: bool = False
    log: bytes | None = None
    returns: str = "serving"
    lock_seconds: float = 1.0
    kept_fds: tuple[int, ...] = ()


def split_layers(text: bytes) -> list[bytes]:
    r"""Split a `LOWER:LOWER...` list; `\:` is a colon and `\\` a backslash in a path."""
    layers, current = [], bytearray()
    at = 0
    while at < len(text):
        if text[at : at + 1] == b"\\" and text[at + 1 : at + 2] in (b":", b"\\"):
            current += text[at + 1 : at + 2]
            at += 2
            continue
        if text[at : at + 1] == b":":
            layers.append(bytes(current))
            current.clear()
        else:
            current += text[at : at + 1]
        at += 1
    return [*layers, bytes(current)]
