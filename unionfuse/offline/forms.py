"""The forms in which the markers of an upper can be written, and what each can not say."""

from __future__ import annotations

from dataclasses import dataclass

from unionfuse.layer import names
from unionfuse.layer.names import ESCAPE, XattrNames

_JOURNAL = b"convert"
JOURNALS = (names.TRUSTED + _JOURNAL, names.USER + _JOURNAL)


@dataclass(frozen=True, slots=True)
class Form:
    """One way to write an upper.

    Attributes:
        name: what users call it.
        char_whiteouts: char 0:0 whiteouts; otherwise `.wh.NAME` files.
        prefix: the namespace of the attributes; None for files alone.
        redirects: whether its readers follow redirects and metacopies. With `userxattr`
            overlayfs does not (overlayfs.rst, "User xattr").
    """

    name: str
    char_whiteouts: bool
    prefix: bytes | None
    redirects: bool

    @property
    def journal(self) -> bytes | None:
        """The attribute of the root that keeps, while it is written, how the upper was."""
        return None if self.prefix is None else self.prefix + _JOURNAL

    def stored(self, name: bytes, own: bytes) -> bytes | None:
        """Return what a user's attribute `name`, as stored in the namespace `own`, is called.

        None if it can not be kept. What is escaped for this form is taken for done already: by the
        same conversion, before it was interrupted.
        """
        if self.prefix is None or self.prefix == own or name.startswith(self.prefix + ESCAPE):
            return name
        shown = XattrNames(own).shown(name)
        return name if shown is None else XattrNames(self.prefix).stored(shown)


FORMS = {
    form.name: form
    for form in (
        Form("overlayfs", char_whiteouts=True, prefix=names.TRUSTED, redirects=True),
        Form("userxattr", char_whiteouts=True, prefix=names.USER, redirects=False),
        Form("aufs", char_whiteouts=False, prefix=None, redirects=False),
    )
}
