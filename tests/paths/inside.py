"""Run a command in other namespaces: `python -m tests.paths.inside FD,FD COMMAND...`."""

import ctypes
import errno
import os
import sys


def main() -> None:
    numbers, *command = sys.argv[1:]
    libc = ctypes.CDLL(None, use_errno=True)
    for number in map(int, numbers.split(",")):
        # EINVAL: it is in that user namespace already (setns(2))
        if libc.setns(number, 0) and ctypes.get_errno() != errno.EINVAL:
            sys.exit(f"setns: {os.strerror(ctypes.get_errno())}")
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
