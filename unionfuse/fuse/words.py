"""The words of `-o`, in one table: those of mount(8), overlayfs, fuse-overlayfs and our own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unionfuse.fuse.errors import MountError
from unionfuse.fuse.options import Ids, MountOptions
from unionfuse.record import replace
from unionfuse.syscalls import mount as sys_mount

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

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

# What holds anyhow, or is for libfuse, which is not here: without a value, and with any.
_NO_MATTER = frozenset(
    {"default_permissions", "defaults", "splice_read", "splice_write", "splice_move"}
    | {"kernel_cache", "auto_unmount"}
)
_NO_MATTER_KEYS = frozenset({"threaded", "fast_ino", "fast_ino_check", "max_write", "max_read"})

# Keys that take one of few values, and those.
_CHOICES = {
    "metacopy": ("on", "off"),
    "redirect_dir": ("on", "follow", "nofollow", "off"),
    "index": ("on", "off"),
    "xino": ("on", "off", "auto"),
    "nfs_export": ("on", "off"),
    "fsync": ("auto", "strict", "volatile", "0", "1"),
    "sync": ("0", "1"),
    "writeback": ("0", "1"),
    "session": ("auto", "pyfuse3", "kernel"),
    "io": ("auto", "cached", "passthrough"),
    "noxattrs": ("0", "1"),
    "xattr_permissions": ("0", "1", "2"),
}


def split_words(text: str) -> list[str]:
    r"""Split the value of one `-o` at its commas; empty words are left out.

    `\,` is a comma in a word, and so is any between the quotes of `KEY="VALUE"`, which go away.
    """
    words, current, at = [], "", 0
    while at < len(text):
        char = text[at]
        if char == "\\" and text[at + 1 : at + 2]:
            current += text[at + 1] if text[at + 1] == "," else text[at : at + 2]
            at += 2
            continue
        end = text.find('"', at + 1) if char == '"' and current.endswith("=") else -1
        if end >= 0:
            current += text[at + 1 : end]
            at = end + 1
            continue
        if char == ",":
            words.append(current)
            current = ""
        else:
            current += char
        at += 1
    return [word for word in (*words, current) if word]


def parse_options(texts: Iterable[str]) -> MountOptions:
    """Parse the values of all `-o`, none of which names a layer; see `parse_words`."""
    return parse_words([word for text in texts for word in split_words(text)])


def parse_words(words: Iterable[str], unknown: list[str] | None = None) -> MountOptions:
    """Parse words; later ones win.

    Args:
        words: as `split_words` returns them.
        unknown: takes those that are not known.

    Raises:
        MountError: for a value that makes no sense; without `unknown` for a word that is not
            known, too.
    """
    options = MountOptions()
    for word in words:
        changed = _with_word(options, word)
        if changed is not None:
            options = changed
        elif unknown is None:
            raise MountError(f"unknown mount option: {word}")
        else:
            unknown.append(word)
    if not options.xattrs or options.override:  # of the disk's modes a mask would mean nothing
        options = replace(options, acl=False)
    if options.metacopy and options.redirect_dir not in (None, "on"):
        raise MountError(f"metacopy=on needs redirect_dir=on, not {options.redirect_dir}")
    if options.metacopy and options.fsync == "strict":
        raise MountError("metacopy=on copies no data that fsync=strict could write to disk")
    return options


def flag_words(words: Iterable[str]) -> tuple[str, ...]:
    """Return those that set or clear flags of mount(2)."""
    return tuple(word for word in words if word in _FLAG_WORDS)


def _with_word(options: MountOptions, word: str) -> MountOptions | None:
    """Return `options` with what `word` says; None if it is not known."""
    key, equals, value = word.partition("=")
    if word in _FLAG_WORDS:
        flag, is_set = _FLAG_WORDS[word]
        flags = options.flags | flag if is_set else options.flags & ~flag
        kept = options.words if word in _IMPLIED_BY_FUSERMOUNT else (*options.words, word)
        return replace(options, flags=flags, words=kept)
    if word in _NO_MATTER or (equals and key in _NO_MATTER_KEYS):
        return options
    if word in _SET_BY_WORD:
        return replace(options, **_SET_BY_WORD[word])
    if not equals:
        return None
    if key in _CHOICES:
        if value not in _CHOICES[key]:
            raise MountError(f"{key} is to be one of {', '.join(_CHOICES[key])}: {value}")
        return replace(options, **_chosen(key, value))
    if key in _PARSED:
        field, parse = _PARSED[key]
        return replace(options, **{field: parse(key, value)})
    return None


def _chosen(key: str, value: str) -> dict[str, Any]:
    """Return the fields of `MountOptions` that one of `_CHOICES` sets."""
    if key in ("fsync", "sync"):
        return {"fsync": "auto" if value == "1" else value}
    if key == "noxattrs":
        return {"xattrs": value == "0"}
    if key == "xattr_permissions":
        return {"override": int(value)}
    if key in ("metacopy", "index", "nfs_export", "writeback"):
        return {key: value in ("on", "1")}
    return {key: value}


def _seconds(key: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not seconds >= 0:
        raise MountError(f"{key} is to be a number of seconds, 0 or more: {text}")
    return seconds


def _name(key: str, text: str) -> str:
    if not text:
        raise MountError(f"{key} is to be a name: {text}")
    return text


def _id(key: str, text: str) -> int:
    if not _is_id(text):
        raise MountError(f"{key} is to be an id: {text}")
    return int(text)


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdecimal() and int(text) < 1 << 32


def _ids(key: str, text: str) -> Ids:
    """Parse `DISK:SHOWN:COUNT[:DISK:SHOWN:COUNT...]`; podman puts a colon before it."""
    numbers = text.removeprefix(":").split(":")
    if len(numbers) % 3 or not all(_is_id(number) for number in numbers):
        raise MountError(f"{key} is to be DISK:SHOWN:COUNT, once or more: {text}")
    flat = [int(number) for number in numbers]
    return tuple(zip(flat[::3], flat[1::3], flat[2::3], strict=True))


def _no_plugins(key: str, text: str) -> None:
    raise MountError(f"{key} are not supported: {text}")


# Words without a value, and the fields of `MountOptions` that they set.
_SET_BY_WORD: dict[str, dict[str, Any]] = {
    "allow_other": {"allow_other": True},
    "allow_root": {"allow_other": True},
    "volatile": {"fsync": "volatile"},
    "debug": {"debug": True},
    "noacl": {"acl": False},
    "noxattrs": {"xattrs": False},
    "static_nlink": {"static_nlink": True},
    "ino32_t": {"short_ino": True},
    "squash_to_root": {"squash_root": True},
}
# Keys with any value, the field of `MountOptions` that each sets, and what makes it of the value.
_PARSED: dict[str, tuple[str, Callable[[str, str], Any]]] = {
    "timeout": ("timeout", _seconds),
    "fsname": ("fsname", _name),
    "subtype": ("subtype", _name),
    "context": ("context", _name),
    "uidmapping": ("uids", _ids),
    "gidmapping": ("gids", _ids),
    "squash_to_uid": ("squash_uid", _id),
    "squash_to_gid": ("squash_gid", _id),
    "plugins": ("plugins", _no_plugins),
}
