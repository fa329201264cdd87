"""The names of the markers that layers carry, in every form that is read or written.

Sources: overlayfs.rst (char 0:0, `trusted.overlay.*`, `user.overlay.*` with `userxattr`),
image-spec layer.md and aufs (`.wh.NAME`, `.wh..wh..opq`), fuse-overlayfs
(`user.fuseoverlayfs.*`).
"""

from unionfuse.record import record

WHITEOUT_PREFIX = b".wh."
OPAQUE_FILE = b".wh..wh..opq"
FUSE_OVERLAYFS_DEVICE = b".wh..opq"  # char 0:0 in the opaque directories that fuse-overlayfs makes
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
METACOPY = b"metacopy"
REDIRECT = b"redirect"

OPAQUE_XATTRS = (TRUSTED + OPAQUE, USER + OPAQUE, FUSE_OVERLAYFS + OPAQUE)
XWHITEOUTS_XATTRS = (TRUSTED + WHITEOUTS, USER + WHITEOUTS)
IMPURE_XATTRS = (TRUSTED + IMPURE, USER + IMPURE)
WHITEOUT_XATTRS = (TRUSTED + WHITEOUT, USER + WHITEOUT)

ESCAPE = b"overlay."
_MARKERS = frozenset(
    {OPAQUE, WHITEOUT, WHITEOUTS, ORIGIN, IMPURE, NLINK, METACOPY, REDIRECT}
    | {b"upper", b"uuid", b"protattr"}
)


def is_reserved(name: bytes) -> bool:
    """Tell whether a file of this name would be read back as a marker."""
    return name.startswith(WHITEOUT_PREFIX)


def marker(name: bytes) -> tuple[bytes, bytes] | None:
    """Return the namespace of overlayfs and the marker of an attribute; None if it is neither."""
    for prefix in (TRUSTED, USER):
        if name.startswith(prefix) and name[len(prefix) :] in _MARKERS:
            return prefix, name[len(prefix) :]
    return None


@record
class XattrNames:
    """Which extended attributes are the union's own, and how users' ones of that kind are kept.

    A user's name in the union's own namespace is escaped, `P` to `P` + `overlay.`, so that
    layers of another overlay can be kept inside this one (overlayfs.rst, "Nesting overlayfs
    mounts"). In the other namespace only the names that mean something in a layer are ours.

    Attributes:
        own: `trusted.overlay.` or `user.overlay.`.
    """

    own: bytes

    def stored(self, name: bytes) -> bytes | None:
        """Return the name under which a user's attribute is stored, None if it may not be."""
        if name.startswith(self.own):
            return self.own + ESCAPE + name[len(self.own) :]
        return None if _is_foreign_marker(name) else name

    def shown(self, name: bytes) -> bytes | None:
        """Return the name under which a stored attribute is shown, None if it is hidden."""
        if name.startswith(self.own):
            rest = name[len(self.own) :]
            return self.own + rest[len(ESCAPE) :] if rest.startswith(ESCAPE) else None
        return None if _is_foreign_marker(name) else name


def _is_foreign_marker(name: bytes) -> bool:
    return name.startswith(FUSE_OVERLAYFS) or marker(name) is not None
