"""A Debian 12 of several layers, made by real package installs; needs a Debian mirror."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

BASE = "localhost/debian:12"
SECONDS = 900.0
# What packages rarely have, so that it is in the image too: names that no ustar header holds, a
# file in place of a directory, a hard link over layers, attributes, a fifo, a hole, an opaque
# directory, a symlink in place of a file.
_ODDITIES = """\
import os, shutil
deep = "/srv/" + "/".join(["d" * 100] * 3)
os.makedirs(deep)
open(deep + "/fr\\u00fchling", "w").write("spring\\n")
os.link("/usr/bin/perl", "/srv/perl")
os.mkfifo("/srv/fifo")
os.setxattr("/srv/perl", "user.note", b"a hard link")
os.truncate(os.open("/srv/hole", os.O_CREAT | os.O_WRONLY), 8 << 20)
shutil.rmtree("/usr/share/zoneinfo", ignore_errors=True)
open("/usr/share/zoneinfo", "w").write("a file now\\n")
shutil.rmtree("/usr/share/doc")
os.makedirs("/usr/share/doc/new")
os.remove("/etc/debian_version")
os.symlink("os-release", "/etc/debian_version")
os.chown("/srv/fifo", 1, 2)
os.chmod("/var/mail", 0o3777)
"""
_CONTAINERFILE = f"""\
FROM {BASE}
ENV DEBIAN_FRONTEND=noninteractive LANG=C.UTF-8
RUN apt-get update && apt-get install -y --no-install-recommends python3 iputils-ping git
RUN apt-get install -y --no-install-recommends gcc libc6-dev
RUN apt-get purge -y git && rm -rf /usr/share/locale /var/lib/apt/lists/*
COPY oddities.py /tmp/
RUN python3 /tmp/oddities.py && rm /tmp/oddities.py
WORKDIR /root
CMD ["python3"]
"""


def make_base(tar: Path) -> None:
    """Make a tar of a small Debian 12."""
    run(["mmdebstrap", "--variant=minbase", "--mode=root", "bookworm", str(tar)])
    tar.chmod(0o644)


def write_context(directory: Path) -> None:
    """Write what an image of six layers on `BASE` is built from, which every user may read."""
    directory.mkdir(mode=0o755)
    for name, content in {"Containerfile": _CONTAINERFILE, "oddities.py": _ODDITIES}.items():
        (directory / name).write_text(content)
        (directory / name).chmod(0o644)


def run(command: list[str]) -> None:
    """Run a command that may take long; its output is shown if it fails."""
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
