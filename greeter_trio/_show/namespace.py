"""A network of this process's own, in which it may capture (user_namespaces(7))."""

import ctypes
import errno
import os
import socket
import struct
from pathlib import Path
from typing import Any

from greeter_trio._net.optional import optional

_fcntl = optional("fcntl")
_os: Any = os  # Windows has no users

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000  # unshare(2)
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1  # netdevice(7)
_REQUEST = struct.Struct("16sh22x")  # struct ifreq: the name of an interface, and its flags


def enter_network_namespace() -> None:
    """Give this process a user namespace and a network namespace of its own, with loopback up.

    The process must have one thread. Nobody has to allow it, unless the system forbids it to all
    (AppArmor, `user.max_user_namespaces`). Raises OSError.
    """
    if not (_fcntl and hasattr(_os, "fork")):
        raise OSError("this platform has no namespaces")
    # A process that fails half-way cannot go back, and has no network then: a child goes first.
    child = _os.fork()
    if child == 0:
        try:
            _enter()
        except OSError as exc:
            _os._exit(exc.errno or errno.EPERM)  # noqa: SLF001 - its documented name
        _os._exit(0)  # noqa: SLF001 - likewise
    _, status = _os.waitpid(child, 0)
    if status:
        raise OSError(number := _os.waitstatus_to_exitcode(status), os.strerror(number))
    _enter()


def _enter() -> None:
    assert _fcntl is not None  # noqa: S101 - otherwise it is not called
    user, group = _os.geteuid(), _os.getegid()
    _unshare(_CLONE_NEWUSER | _CLONE_NEWNET)
    own = Path("/proc/self")
    (own / "setgroups").write_text("deny")
    (own / "uid_map").write_text(f"0 {user} 1")
    (own / "gid_map").write_text(f"0 {group} 1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = _fcntl.ioctl(sock, _SIOCGIFFLAGS, _REQUEST.pack(b"lo", 0))
        _, flags = _REQUEST.unpack(request[: _REQUEST.size])
        _fcntl.ioctl(sock, _SIOCSIFFLAGS, _REQUEST.pack(b"lo", flags | _IFF_UP))


def _unshare(flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)  # `os.unshare` is new in Python 3.12
    if not hasattr(libc, "unshare"):
        raise OSError("this platform has no namespaces")
    if libc.unshare(flags):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
