"""What to mount: layers, mount options, and how to serve them; parsed from words."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from unionfuse.fuse.errors import MountError
from unionfuse.syscalls import mount as sys_mount

DEFAULT_POLL_US = 100
DEFAULT_TIMEOUT = 1e9  # seconds: the daemon is the only one that changes what it serves

# Words that set or clear flags of mount(2), as mount(8) has them.
_FLAG_WORDS = {
    "ro": (sys_mount.MS_RDONLY, True),
    "rw": (sys_mount.MS_RDONLY, False),
    "nosuid": (sys_mount.MS_NOSUID, True),
    "suid": (sys_mount.MS_NOSUID, False),
    "nodev": (sys_mount.MS_NODEV, True),
    "dev": (sys_mount.MS_NODEV, False),
    "noexec": (sys_mount.MS_NOEXEC, True),
    "exec": (sys_mount.MS_NOEXEC, False),
    "sync": (sys_mount.MS_SYNCHRONOUS, True),
    "async": (sys_mount.MS_SYNCHRONOUS, False),
    "dirsync": (sys_mount.MS_DIRSYNC, True),
    "noatime": (sys_mount.MS_NOATIME, True),
    "atime": (sys_mount.MS_NOATIME, False),
    "nodiratime": (sys_mount.MS_NODIRATIME, True),
    "diratime": (sys_mount.MS_NODIRATIME, False),
    "relatime": (sys_mount.MS_RELATIME, True),
    "norelatime": (sys_mount.MS_RELATIME, False),
    "strictatime": (sys_mount.MS_STRICTATIME, True),
    "nostrictatime": (sys_mount.MS_STRICTATIME, False),
}
# fusermount3 takes the same words, but for these, which say what it does anyhow.
_IMPLIED_BY_FUSERMOUNT = frozenset({"rw", "nodiratime", "diratime", "norelatime", "nostrictatime"})

# Words of overlayfs, and the values that they have here.
_CHOICES = {
    "metacopy": ("on", "off"),
    "redirect_dir": ("on", "follow", "nofollow", "off"),
    "index": ("on", "off"),
    "xino": ("on", "off", "auto"),
    "nfs_export": ("on", "off"),
    "fsync": ("auto", "strict", "volatile", "0", "1"),
}


@dataclass(frozen=True, slots=True)
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

    @property
    def volatile(self) -> bool:
        """Whether nothing is written to disk for safety's sake."""
        return self.fsync in ("volatile", "0")

    @property
    def read_only(self) -> bool:
        """Whether the mount is read-only."""
        return bool(self.flags & sys_mount.MS_RDONLY)


@dataclass(frozen=True, slots=True)
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


def parse_options(texts: tuple[str, ...]) -> MountOptions:
    """Parse the values of all `-o`; later words win, empty ones are skipped.

    Raises:
        MountError: for a word that is not known or a value that makes no sense.
    """
    options = MountOptions()
    for word in (word for text in texts for word in text.split(",") if word):
        options = _with_word(options, word)
    if options.metacopy and options.redirect_dir not in (None, "on"):
        raise MountError(f"metacopy=on needs redirect_dir=on, not {options.redirect_dir}")
    if options.metacopy and options.fsync == "strict":
        raise MountError("metacopy=on copies no data that fsync=strict could write to disk")
    return options


def flag_words(words: tuple[str, ...]) -> tuple[str, ...]:
    """Return those that set or clear flags of mount(2)."""
    return tuple(word for word in words if word in _FLAG_WORDS)


def _with_word(options: MountOptions, word: str) -> MountOptions:
    key, _, value = word.partition("=")
    if word in _FLAG_WORDS:
        flag, is_set = _FLAG_WORDS[word]
        flags = options.flags | flag if is_set else options.flags & ~flag
        words = options.words if word in _IMPLIED_BY_FUSERMOUNT else (*options.words, word)
        return replace(options, flags=flags, words=words)
    if word in ("default_permissions", "defaults"):
        return options  # permissions are always the kernel's to check
    if word == "allow_other":
        return replace(options, allow_other=True)
    if word == "volatile":
        return replace(options, fsync="volatile")
    if key == "writeback" and value in ("0", "1"):
        return replace(options, writeback=value == "1")
    if key == "timeout":
        return replace(options, timeout=_seconds(value))
    if key == "fsname" and value:
        return replace(options, fsname=value)
    if key == "subtype" and value:
        return replace(options, subtype=value)
    if value in _CHOICES.get(key, ()):
        return _with_choice(options, key, value)
    if key in _CHOICES:
        raise MountError(f"{key} is to be one of {', '.join(_CHOICES[key])}: {value}")
    raise MountError(f"unknown mount option: {word}")


def _with_choice(options: MountOptions, key: str, value: str) -> MountOptions:
    if key == "metacopy":
        return replace(options, metacopy=value == "on")
    if key == "index":
        return replace(options, index=value == "on")
    if key == "nfs_export":
        return replace(options, nfs_export=value == "on")
    if key == "fsync":
        return replace(options, fsync="auto" if value == "1" else value)
    if key == "redirect_dir":
        return replace(options, redirect_dir=value)
    return replace(options, xino=value)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not seconds >= 0:
        raise MountError(f"timeout is to be a number of seconds, 0 or more: {text}")
    return seconds
