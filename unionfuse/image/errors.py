"""What can be wrong with an image, in words for its user.

    ImageError
        BadReference    a name of an image that is none
        NotFound        what was asked for is not there
        Corrupt         content is not what its name or descriptor says
        Malformed       a document or a layer is not as the specification has it
        Refused         it could be done, and is not: a limit, a kind that is not supported
        RegistryError   a registry could not be reached, or answered with an error
        StoreError      the store can not be used: no room, not permitted, of another version

What the kernel refuses while a layer is read or written stays an OSError.
"""

from __future__ import annotations

import os


def reason(err: OSError) -> str:
    """Return what the kernel refused, as a path and why, without the number."""
    if err.strerror is None:
        return str(err)
    named = isinstance(err.filename, (str, bytes))
    return f"{os.fsdecode(err.filename)}: {err.strerror}" if named else err.strerror


class ImageError(Exception):
    """Something that was asked of an image can not be done; the text is one line."""


class BadReference(ImageError):
    """The name of an image makes no sense."""


class NotFound(ImageError):
    """There is no such image, blob or layer."""


class Corrupt(ImageError):
    """Content does not have the digest, the size or the diff_id that it was named by."""


class Malformed(ImageError):
    """A manifest, an index, a config or a layer is not as image-spec has it."""


class Refused(ImageError):
    """What was found goes over a limit, or is of a kind that is not supported."""


class RegistryError(ImageError):
    """A registry could not be reached, or answered with an error.

    Attributes:
        status: of the HTTP answer; 0 if there was none.
        code: of distribution-spec, e.g. `MANIFEST_UNKNOWN`; empty if none was given.
    """

    def __init__(self, text: str, *, status: int = 0, code: str = "") -> None:
        super().__init__(text)
        self.status = status
        self.code = code


class StoreError(ImageError):
    """The store can not be used; the text says why."""
