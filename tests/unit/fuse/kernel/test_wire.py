"""The wire format is what the header of this machine's kernel says, byte for byte."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from struct import Struct

import pytest

from unionfuse.fuse.kernel import wire

# What headers older than this minor version of the protocol lack. Real mounts show that these are
# right: tests/integration reads a time of birth, and data past the daemon.
NEWER = {
    "STATX": 39,
    "STATX_IN": 39,
    "STATX_OUT": 39,
    "STATX_ATTR": 39,
    "PASSTHROUGH": 40,
    "FOPEN_PASSTHROUGH": 40,
}
HEADER = Path("/usr/include/linux/fuse.h").read_text()
HEADER_MINOR = int(re.findall(r"define FUSE_KERNEL_MINOR_VERSION (\d+)", HEADER)[0])
NEWER = {name: minor for name, minor in NEWER.items() if minor > HEADER_MINOR}

# Structs that the header has under the same name, in lower case and with `fuse_` before it.
STRUCTS = {
    name: value
    for name, value in vars(wire).items()
    if isinstance(value, Struct)
    and name not in {"INIT_IN", "INIT_OUT", "STATFS_OUT"} | NEWER.keys()
}
# What the header says of these ends in unused words, which the kernel fills or ignores.
PARTIAL = {"INIT_IN": 64, "INIT_OUT": 64, "STATFS_OUT": 80}
# Two-part structs: the header's includes the attributes that follow.
FOLLOWED = {
    "ENTRY_OUT": wire.ATTR.size,
    "ATTR_OUT": wire.ATTR.size,
    "STATX_OUT": wire.STATX_ATTR.size,
}
HEADER_NAMES = {"STATX_ATTR": "statx"}
OWN = {"MAJOR", "MINOR", "MIN_MINOR"}
CONSTANTS = {
    name: value
    for name, value in vars(wire).items()
    if name.isupper() and isinstance(value, int) and name not in OWN | NEWER.keys()
}


def header_name(name: str) -> str:
    prefix = "" if name.startswith(("FATTR_", "FOPEN_")) else "FUSE_"
    return prefix + name


@pytest.fixture(scope="module")
def header(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """Return sizes and constants, told by a program compiled with <linux/fuse.h>."""
    directory: Path = tmp_path_factory.mktemp("wire")
    lines = [
        f'printf("{name} %zu\\n", sizeof(struct fuse_{HEADER_NAMES.get(name, name.lower())}));'
        for name in (*STRUCTS, *PARTIAL)
    ]
    lines += [f'printf("{name} %lld\\n", (long long)({header_name(name)}));' for name in CONSTANTS]
    body = "\n".join(lines)
    source = f"#include <stdio.h>\n#include <linux/fuse.h>\nint main(void) {{\n{body}\n}}\n"
    (directory / "wire.c").write_text(source)
    subprocess.run(["cc", "-o", "wire", "wire.c"], cwd=directory, check=True, timeout=60)
    done = subprocess.run([directory / "wire"], check=True, timeout=10, capture_output=True)
    return {name.decode(): int(value) for name, value in re.findall(rb"(\w+) (-?\d+)", done.stdout)}


@pytest.mark.parametrize("name", STRUCTS)
def test_a_struct_has_the_size_of_the_header(name: str, header: dict[str, int]) -> None:
    size = STRUCTS[name].size + FOLLOWED.get(name, 0)
    assert size == header[name]


@pytest.mark.parametrize("name", PARTIAL)
def test_a_struct_that_ends_in_unused_words_has_its_full_size(
    name: str, header: dict[str, int]
) -> None:
    assert header[name] == PARTIAL[name]
    assert getattr(wire, name).size in (header[name], 20)


@pytest.mark.parametrize("name", CONSTANTS)
def test_a_constant_has_the_value_of_the_header(name: str, header: dict[str, int]) -> None:
    assert CONSTANTS[name] == header[name]


@pytest.mark.parametrize("name", [b"a", b"sevenby", b"eight-by", os.fsencode("über") * 20])
def test_entries_of_a_listing_are_aligned_to_eight_bytes(name: bytes) -> None:
    entry = wire.dirent(7, 3, 0o040000, name)
    assert len(entry) % 8 == 0
    assert wire.DIRENT.unpack_from(entry) == (7, 3, len(name), 4)
    assert entry[wire.DIRENT.size :].rstrip(b"\0") == name
