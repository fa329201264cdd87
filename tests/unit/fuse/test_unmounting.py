"""Who is told to have a mount that was just taken away."""

from unionfuse.fuse import mountinfo, unmounting
from unionfuse.fuse.mountinfo import Mount


def table(monkeypatch, holders, *mountpoints):
    mounts = [Mount(b"0:7", b"/", point, (), b"fuse.unionfuse") for point in mountpoints]
    monkeypatch.setattr(mountinfo, "mounts", lambda: mounts)
    monkeypatch.setattr(mountinfo, "holders_of", lambda _: holders)
    monkeypatch.setattr(mountinfo, "is_mounted_for", lambda pid, _: pid in holders)


def test_one_that_had_it_before_and_has_it_still_is_told(monkeypatch):
    table(monkeypatch, [1], b"/mnt")
    others = unmounting._Others.of(b"/mnt", b"0:7")
    table(monkeypatch, [1])
    assert others.still().startswith("process 1 (")


def test_another_filesystem_that_got_its_number_is_not_taken_for_it(monkeypatch):
    table(monkeypatch, [], b"/mnt")
    others = unmounting._Others.of(b"/mnt", b"0:7")
    table(monkeypatch, [1], b"/other")
    assert others.still() is None


def test_another_place_in_this_namespace_is_told(monkeypatch):
    table(monkeypatch, [], b"/mnt", b"/second")
    others = unmounting._Others.of(b"/mnt", b"0:7")
    table(monkeypatch, [], b"/second")
    assert others.still() == "it is mounted on /second too"
