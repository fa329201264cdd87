"""What the index of a layer tells, and what is found by it in a layer that was changed."""

from __future__ import annotations

import io
import os
import tarfile

import pytest

from tests.support.core import CHAR_USER, WH_FILES
from tests.support.tars import TarBuilder, apply, xattrs
from unionfuse.image.errors import Corrupt
from unionfuse.image.layers.form import LayerForm
from unionfuse.image.layers.index import IndexEntry, IndexHead, IndexWriter, read_index
from unionfuse.image.layers.verify import verify_layer

ROOT = LayerForm(CHAR_USER, owners=True, devices=True)
FORMS = {
    "one user": LayerForm(CHAR_USER, owners=False, devices=False),
    "root": ROOT,
    "a namespace": LayerForm(CHAR_USER, owners=True, devices=False),
    "files as whiteouts": LayerForm(WH_FILES, owners=True, devices=True),
}
MARKS = [pytest.param(form, id=name, marks=pytest.mark.root) for name, form in FORMS.items()]


def layer():
    return (
        TarBuilder()
        .dir("d", mode=0o700)
        .file("d/f", b"content" * 100, mode=0o4755, uid=5, pax_headers=xattrs(user__k="v"))
        .link("a", "d/f")
        .symlink("s", "d/f")
        .device("dev", 1, 3)
        .fifo("p")
        .file("d/.wh.gone")
        .dir("o")
        .file("o/.wh..wh..opq")
        .file("implied/f")
        .file("twice", b"1")
        .file("twice", b"2")
        .bytes()
    )


def index_of(directory, form=None):
    writer = IndexWriter()
    apply(layer(), directory, form, index=writer)
    out = io.BytesIO()
    writer.write(out.write, form or ROOT)
    return out.getvalue()


def differences(directory, index):
    head, entries = read_index(io.BytesIO(index))
    fd = os.open(directory, os.O_RDONLY)
    try:
        return {(os.fsdecode(d.path), d.what) for d in verify_layer(fd, head, entries)}
    finally:
        os.close(fd)


@pytest.mark.parametrize("form", MARKS)
def test_a_layer_is_as_its_index_says(tmp_path, monkeypatch, form):
    monkeypatch.setattr("unionfuse.image.layers.verify.is_root", lambda: False)
    assert differences(tmp_path / "l", index_of(tmp_path / "l", form)) == set()


def damage(path):
    os.chmod(path / "d", 0o755)
    (path / "d/f").write_bytes(b"CONTENT" * 100)
    os.utime(path / "p", (1, 1))
    (path / "s").unlink()
    (path / "d/gone").unlink()
    (path / "new").touch()
    (path / "twice").write_bytes(b"")
    os.removexattr(path / "o", "trusted.overlay.opaque")


@pytest.mark.root
def test_every_damage_is_found(tmp_path):
    index = index_of(tmp_path / "l")
    damage(tmp_path / "l")
    assert differences(tmp_path / "l", index) == {
        ("d", "mode"), ("d", "mtime"), ("d/f", "content"), ("d/f", "mtime"),
        ("p", "mtime"), ("s", "missing"), ("d/gone", "missing"), ("new", "extra"),
        ("twice", "size"), ("twice", "mtime"), ("o", "opaque"),
    }  # fmt: skip


def test_entries_come_in_order_and_the_later_ones_count():
    writer = IndexWriter()
    for path, size in ((b"b", 1), (b"a", 2), (b"b", 3), (b"c", 4)):
        writer.add(IndexEntry(path, "f", size=size))
    writer.remove(b"c")
    out = io.BytesIO()
    writer.write(out.write, ROOT)
    head, entries = read_index(io.BytesIO(out.getvalue()))
    assert head == IndexHead(1, True, True)
    assert [(entry.path, entry.size) for entry in entries] == [(b"a", 2), (b"b", 3)]


@pytest.mark.parametrize("data", [b"", b"x" * 100, tarfile.NUL * 30])
def test_a_damaged_index_is_an_error(data):
    with pytest.raises(Corrupt):
        read_index(io.BytesIO(data))


def test_a_cut_index_is_an_error(tmp_path):
    writer = IndexWriter()
    for number in range(100):
        writer.add(IndexEntry(b"%d" % number, "f"))
    out = io.BytesIO()
    writer.write(out.write, ROOT)
    with pytest.raises(Corrupt):
        list(read_index(io.BytesIO(out.getvalue()[:-20]))[1])
