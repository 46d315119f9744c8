"""Listening at the path of a Unix socket, in place of a server that has left its file behind."""

import contextlib
import errno
import os
import socket
import stat
from pathlib import Path
from types import ModuleType

import trio

from .endpoints import AF_UNIX, UNAVAILABLE, Unix
from .optional import optional

_fcntl = optional("fcntl")

_LOCK_TIMEOUT = 5.0  # seconds to wait for another server that is starting in the same folder
_LOCK_PAUSE = 0.01  # seconds between two attempts


async def listen_unix(
    endpoint: Unix, backlog: int, mode: int | None = None
) -> tuple[socket.socket, os.stat_result | None]:
    """Listen at a path, and return the socket and the file that was made there, with this mode.

    An abstract socket has no file, and nothing of the following. A socket that no server listens on
    any more is replaced; anything else that is there raises OSError. Meanwhile a lock on the folder
    is held: of two servers that start at once, both may find the same stale file, and the slower
    one would remove the file of the other, or find it bound but not yet listened on, and take it
    for stale. Another process that can read the folder can hold the lock, too; one that holds it
    for long is no server that starts, and is not waited for. A folder that cannot be read has no
    lock.
    """
    if not (_fcntl and AF_UNIX):
        raise OSError(UNAVAILABLE["unix"])
    if endpoint.is_abstract:
        return _listen_abstract(endpoint.address, backlog), None
    try:
        folder = os.open(Path(endpoint.path).parent, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    except PermissionError:
        return _listen(endpoint.path, backlog, mode)
    try:
        await _lock(_fcntl, folder)
        return _listen(endpoint.path, backlog, mode)
    finally:
        os.close(folder)  # this releases the lock


async def _lock(fcntl: ModuleType, folder: int) -> None:
    with trio.move_on_after(_LOCK_TIMEOUT):
        while True:
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                await trio.sleep(_LOCK_PAUSE)
            else:
                return


def _listen(path: str, backlog: int, mode: int | None) -> tuple[socket.socket, os.stat_result]:
    _remove_stale(path)
    # The file has its mode from the beginning: bind leaves what umask does not take (unix(7)).
    with contextlib.ExitStack() as restoring, contextlib.ExitStack() as undo:
        if mode is not None:
            restoring.callback(os.umask, os.umask(0o777 & ~mode))
        sock = undo.enter_context(_bound(path))
        undo.callback(os.unlink, path)
        file = os.lstat(path)
        sock.listen(backlog)
        undo.pop_all()
    return sock, file


def _listen_abstract(address: str, backlog: int) -> socket.socket:
    with contextlib.ExitStack() as undo:
        sock = undo.enter_context(_bound(address))
        sock.listen(backlog)
        undo.pop_all()
    return sock


def _bound(address: str) -> socket.socket:
    sock = socket.socket(AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(address)
    except BaseException:
        sock.close()
        raise
    return sock


def _remove_stale(path: str) -> None:
    """Remove a socket that no server listens on; raise OSError if anything else is there."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise OSError("what is there is no socket: remove it, or choose another path")
    with socket.socket(AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(0)
        code = probe.connect_ex(path)
    if code in (0, errno.EAGAIN, errno.EPROTOTYPE):  # accepted; a full backlog; datagrams
        raise OSError("a program is listening there: choose another path, or end that program")
    if code not in (errno.ECONNREFUSED, errno.ENOENT):
        raise OSError(code, os.strerror(code))
    Path(path).unlink(missing_ok=True)
