"""Names of markers: what is reserved, what is hidden, what is escaped."""

from __future__ import annotations

import pytest

from unionfuse.layer.names import TRUSTED, USER, XattrNames, is_reserved


@pytest.mark.parametrize("name", [b".wh.", b".wh.x", b".wh..wh..opq", b".wh.\xff"])
def test_names_that_are_read_as_markers_are_reserved(name: bytes) -> None:
    assert is_reserved(name)


@pytest.mark.parametrize("name", [b".wh", b"x.wh.y", b".WH.x", b"wh.x"])
def test_other_names_are_not(name: bytes) -> None:
    assert not is_reserved(name)


@pytest.mark.parametrize("own", [TRUSTED, USER])
@pytest.mark.parametrize("rest", [b"opaque", b"origin", b"anything", b"overlay.opaque", b""])
def test_users_names_of_the_own_namespace_go_in_and_come_out(own: bytes, rest: bytes) -> None:
    names = XattrNames(own)
    stored = names.stored(own + rest)
    assert stored == own + b"overlay." + rest
    assert names.shown(stored) == own + rest


@pytest.mark.parametrize("own", [TRUSTED, USER])
def test_the_own_marks_are_hidden(own: bytes) -> None:
    assert XattrNames(own).shown(own + b"origin") is None


@pytest.mark.parametrize(("own", "other"), [(TRUSTED, USER), (USER, TRUSTED)])
def test_marks_of_the_other_namespace_are_hidden_and_refused(own: bytes, other: bytes) -> None:
    names = XattrNames(own)
    assert names.shown(other + b"opaque") is None
    assert names.stored(other + b"opaque") is None


@pytest.mark.parametrize("own", [TRUSTED, USER])
def test_marks_of_fuse_overlayfs_are_hidden_and_refused(own: bytes) -> None:
    names = XattrNames(own)
    assert names.shown(b"user.fuseoverlayfs.origin") is None
    assert names.stored(b"user.fuseoverlayfs.opaque") is None


@pytest.mark.parametrize("own", [TRUSTED, USER])
@pytest.mark.parametrize("name", [b"user.test", b"trusted.test", b"system.posix_acl_access"])
def test_other_names_stay_as_they_are(own: bytes, name: bytes) -> None:
    assert XattrNames(own).stored(name) == XattrNames(own).shown(name) == name
