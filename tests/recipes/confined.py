"""Run a command under a system-call filter like systemd's, without systemd (Linux).

    python confined.py FILE FAMILIES COMMAND...

FILE has the names of all system calls that are allowed. Others fail with EPERM, and so does
socket(2) for address families other than these, such as AF_INET,AF_UNIX. Memory cannot become
executable (Linux 6.3).
"""

import ctypes
import errno
import os
import socket
import sys
from pathlib import Path

# linux/prctl.h
PR_SET_MDWE = 65
PR_MDWE_REFUSE_EXEC_GAIN = 1
# seccomp.h
ALLOW = 0x7FFF0000
ERRNO = 0x00050000
EQUAL = 4


class Comparison(ctypes.Structure):
    """What an argument of a system call must be: struct scmp_arg_cmp."""

    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("value", ctypes.c_uint64),
        ("other", ctypes.c_uint64),
    )


def confine(allowed: list[str], families: list[int]) -> None:
    """Restrict this process, and what it executes, to these system calls and address families."""
    seccomp = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    seccomp.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(seccomp.seccomp_init(ctypes.c_uint32(ERRNO | errno.EPERM)))
    one_of_these = [[Comparison(0, EQUAL, family, 0)] for family in families]
    for name in allowed:
        number = seccomp.seccomp_syscall_resolve_name(name.encode())
        if number < 0:  # this architecture does not have it
            continue
        for conditions in one_of_these if name == "socket" else [[]]:
            array = (Comparison * len(conditions))(*conditions)
            action = ctypes.c_uint32(ALLOW)
            failed = seccomp.seccomp_rule_add_array(context, action, number, len(array), array)
            assert not failed, name
    ctypes.CDLL(None).prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0)
    assert not seccomp.seccomp_load(context)  # which gives up new privileges as well


if __name__ == "__main__":
    file, names, *command = sys.argv[1:]
    families = [getattr(socket, name) for name in names.split(",")]
    confine(Path(file).read_text("utf-8").split(), families)
    os.execvp(command[0], command)
