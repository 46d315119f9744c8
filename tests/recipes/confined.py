"""Run a command under a system-call filter like systemd's, without systemd (Linux).

    python confined.py FILE COMMAND...

FILE has the names of all system calls that are allowed. Others fail with EPERM, and so does
socket(2) for any family but AF_UNIX. Memory cannot become executable (Linux 6.3).
"""

import ctypes
import errno
import os
import sys
from pathlib import Path

AF_UNIX = 1
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


def confine(allowed: list[str]) -> None:
    """Restrict this process, and what it executes, to these system calls."""
    seccomp = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    seccomp.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(seccomp.seccomp_init(ctypes.c_uint32(ERRNO | errno.EPERM)))
    unix = Comparison(0, EQUAL, AF_UNIX, 0)
    for name in allowed:
        number = seccomp.seccomp_syscall_resolve_name(name.encode())
        if number < 0:  # this architecture does not have it
            continue
        conditions = [unix] if name == "socket" else []
        array = (Comparison * len(conditions))(*conditions)
        action = ctypes.c_uint32(ALLOW)
        failed = seccomp.seccomp_rule_add_array(context, action, number, len(conditions), array)
        assert not failed, name
    ctypes.CDLL(None).prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0)
    assert not seccomp.seccomp_load(context)  # which gives up new privileges as well


if __name__ == "__main__":
    file, *command = sys.argv[1:]
    confine(Path(file).read_text("utf-8").split())
    os.execvp(command[0], command)
