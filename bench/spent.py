"""What a command took, with all the processes that it has begun and waited for.

As a program (`python -I -S bench/spent.py FILE COMMAND...`) it runs the command and writes that to
FILE. A program of its own, since a command's peak of memory is at least that of who has forked it.
"""

import os
import resource
import sys
import time


def main() -> None:
    result, *command = sys.argv[1:]
    begun = time.monotonic()
    pid = os.posix_spawnp(command[0], command, os.environ)
    _, status, usage = os.wait4(pid, 0)
    seconds = time.monotonic() - begun
    write(result, seconds, usage)
    sys.exit(os.waitstatus_to_exitcode(status) & 0xFF)


def write(result: str, seconds: float, usage: resource.struct_rusage) -> None:
    """Write seconds, those of CPUs, and KiB of memory."""
    with open(result, "w") as file:
        file.write(f"{seconds} {usage.ru_utime + usage.ru_stime} {usage.ru_maxrss}")


if __name__ == "__main__":
    main()
