import os
from pathlib import Path

import pytest

from unionfuse.container.errors import ContainerError
from unionfuse.container.users import User, read_accounts, resolve

PASSWD = """root:x:0:0:root:/root:/bin/sh
web:x:33:33:web:/var/www:/bin/false
1000:x:7:7::/home/odd:/bin/sh
broken line
plain:x:1000:1001
"""
GROUP = "root:x:0:\nweb:x:33:\nlog:x:4:web,plain\nvideo:x:44:web\n"


@pytest.mark.parametrize(
    ("text", "user"),
    [
        ("", User(0, 0, (), "/root")),
        ("web", User(33, 33, (4, 44), "/var/www")),
        ("33", User(33, 33, (4, 44), "/var/www")),
        ("web:log", User(33, 4, (), "/var/www")),
        ("web:99", User(33, 99, (), "/var/www")),
        ("5000", User(5000, 0, (), "/")),
        ("5000:5001", User(5000, 5001, (), "/")),
        ("1000", User(7, 7, (), "/home/odd")),
        ("plain", User(1000, 1001, (4,), "/")),
    ],
)
def test_a_user_is_looked_up_in_the_files_of_the_image(text: str, user: User) -> None:
    assert resolve(text, PASSWD, GROUP) == user


@pytest.mark.parametrize("text", ["nobody", "web:nogroup", str(1 << 31), f"0:{1 << 31}"])
def test_who_is_not_there_is_refused(text: str) -> None:
    with pytest.raises(ContainerError):
        resolve(text, PASSWD, GROUP)


def test_without_any_file_there_is_root_alone() -> None:
    assert resolve("", "", "") == User(0, 0, (), "/")


def _accounts(root: Path) -> tuple[str, str]:
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    try:
        return read_accounts(fd)
    finally:
        os.close(fd)


def test_a_symlink_in_the_image_is_followed_below_its_root_only(tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("secret")
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/real").write_text(PASSWD)
    (root / "etc/passwd").symlink_to("/etc/real")
    (root / "etc/group").symlink_to("../../outside")
    assert _accounts(root) == (PASSWD, "")


def test_what_is_no_regular_file_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    os.mkfifo(tmp_path / "etc/passwd")
    (tmp_path / "etc/group").mkdir()
    assert _accounts(tmp_path) == ("", "")
