"""The names of the markers that layers carry, in every form that is read or written.

Sources: overlayfs.rst (char 0:0, `trusted.overlay.*`, `user.overlay.*` with `userxattr`),
image-spec layer.md and aufs (`.wh.NAME`, `.wh..wh..opq`), fuse-overlayfs
(`user.fuseoverlayfs.*`).
"""

WHITEOUT_PREFIX = b".wh."
OPAQUE_FILE = b".wh..wh..opq"
AUFS_META_PREFIX = b".wh..wh."  # aufs' own files: no whiteouts, and never shown

TRUSTED = b"trusted.overlay."
USER = b"user.overlay."
FUSE_OVERLAYFS = b"user.fuseoverlayfs."

OPAQUE = b"opaque"
WHITEOUT = b"whiteout"
WHITEOUTS = b"whiteouts"  # kernel 6.7's mark of a directory with xattr whiteouts
ORIGIN = b"origin"
IMPURE = b"impure"
NLINK = b"nlink"

OPAQUE_XATTRS = (TRUSTED + OPAQUE, USER + OPAQUE, FUSE_OVERLAYFS + OPAQUE)
XWHITEOUTS_XATTRS = (TRUSTED + WHITEOUTS, USER + WHITEOUTS)
IMPURE_XATTRS = (TRUSTED + IMPURE, USER + IMPURE)
WHITEOUT_XATTRS = (TRUSTED + WHITEOUT, USER + WHITEOUT)

_ESCAPE = b"overlay."


def is_reserved(name: bytes) -> bool:
    """Tell whether a file of this name would be read back as a marker."""
    return name.startswith(WHITEOUT_PREFIX)


def stored_xattr(name: bytes) -> bytes | None:
    """Return the name under which a user's attribute `name` is stored, None if it can not be.

    A name in the union's own namespace is escaped, `P` to `P` + `overlay.`, so that layers
    of another overlay can be kept inside this one (overlayfs.rst, "Nesting overlayfs mounts").
    """
    if name.startswith(FUSE_OVERLAYFS):
        return None
    for prefix in (TRUSTED, USER):
        if name.startswith(prefix):
            return prefix + _ESCAPE + name[len(prefix) :]
    return name


def shown_xattr(name: bytes) -> bytes | None:
    """Return the name under which a stored attribute is shown, None if it is hidden."""
    if name.startswith(FUSE_OVERLAYFS):
        return None
    for prefix in (TRUSTED, USER):
        if name.startswith(prefix):
            rest = name[len(prefix) :]
            return prefix + rest[len(_ESCAPE) :] if rest.startswith(_ESCAPE) else None
    return name
