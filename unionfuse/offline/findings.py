"""What can be wrong with an upper and its workdir, and what would mend it."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable


class Kind(enum.StrEnum):
    """The kinds of findings; their values are stable, for who reads them as JSON."""

    LEFTOVER = "leftover"  # in the workdir: what a crash left there
    INCOMPATIBLE = "incompatible-mark"  # WORKDIR/work/incompat: volatile
    WHITEOUT_OVER_NOTHING = "whiteout-over-nothing"
    WHITEOUT_IN_OPAQUE = "whiteout-in-opaque"
    WHITEOUT_BESIDE_NAME = "whiteout-beside-name"  # `.wh.NAME` and NAME
    WHITEOUT_UNMARKED = "whiteout-unmarked"  # xattr whiteout where they are not looked for
    RESERVED_NAME = "reserved-name"  # `.wh.` and no whiteout
    OPAQUE_IN_OPAQUE = "opaque-in-opaque"
    OPAQUE_OVER_NOTHING = "opaque-over-nothing"
    MIXED_NAMESPACES = "mixed-namespaces"
    REDIRECT_MALFORMED = "redirect-malformed"
    REDIRECT_NOWHERE = "redirect-nowhere"
    REDIRECT_DUPLICATE = "redirect-duplicate"
    METACOPY_MALFORMED = "metacopy-malformed"
    METACOPY_WITHOUT_DATA = "metacopy-without-data"
    METACOPY_SIZE = "metacopy-size"
    ORIGIN_MALFORMED = "origin-malformed"
    ORIGIN_STALE = "origin-stale"
    IMPURE_MISSING = "impure-missing"
    INDEX_MALFORMED = "index-malformed"
    INDEX_MISMATCH = "index-mismatch"
    INDEX_NLINK = "index-nlink"
    INDEX_ORPHAN = "index-orphan"


# What overlayfs itself leaves, and what changes nothing: told only when that is asked for.
SUPERFLUOUS = frozenset({Kind.OPAQUE_IN_OPAQUE, Kind.OPAQUE_OVER_NOTHING})


@dataclass(frozen=True, slots=True)
class Mend:
    """A change that mends a finding, and of the tree that a mount shows changes nothing.

    But where a directory is marked impure its metacopies, which were not seen to be such, have
    their data again.

    Attributes:
        text: what it does, in the imperative.
        run: does it; raises OSError.
    """

    text: str
    run: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        place: whether `path` is in the upper or in the workdir.
        path: from there, without a slash before it.
        kind: which kind of thing it is.
        detail: the rest, in words for a user.
        mend: what would mend it; None where that would be a guess.
    """

    place: Literal["upper", "workdir"]
    path: bytes
    kind: Kind
    detail: str
    mend: Mend | None = None
