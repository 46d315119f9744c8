"""Greeter in a process that has only what all platforms have: `python -m tests.support.elsewhere`.

With `library CERTIFICATE CA` it runs server and client as a library; everything else is for the
command line.

Trio and the standard library need some of what is hidden here. So Greeter is imported twice: first
with all that it imports, and then again, when only copies of modules, without certain names, are
to be found.
"""

import importlib
import sys
from functools import partial
from types import ModuleType

import trio

MODULES = "fcntl grp pty pwd resource termios tty"
NAMES = """
errno ENONET
os O_CLOEXEC O_DIRECTORY O_NOCTTY O_NOFOLLOW O_NONBLOCK chown fork forkpty get_blocking geteuid
os getpgid getpgrp
os getuid killpg memfd_create mkfifo openpty pread readv sched_getaffinity sendfile set_blocking
os setsid sysconf tcgetpgrp uname unshare waitid writev
select epoll kqueue poll
signal SIGALRM SIGCHLD SIGCONT SIGHUP SIGIO SIGKILL SIGPIPE SIGQUIT SIGSTOP SIGTSTP SIGTTIN SIGTTOU
signal SIGUSR1 SIGUSR2 SIGWINCH alarm pause pthread_kill pthread_sigmask setitimer sigwait
socket AF_NETLINK AF_PACKET AF_UNIX AF_VSOCK MSG_DONTWAIT MSG_NOSIGNAL SCM_RIGHTS SOCK_CLOEXEC
socket SOCK_NONBLOCK SO_PEERCRED SO_REUSEPORT TCP_INFO TCP_NOTSENT_LOWAT TCP_USER_TIMEOUT
socket recv_fds send_fds
"""
"""In each line a module, and names in it."""


def hide() -> None:
    """Have modules that are imported from now on see nothing that not all platforms have."""
    sys.modules["readline"] = None  # type: ignore[assignment]  # first: it changes `input` for good
    importlib.import_module("greeter_trio._cli")
    for module in MODULES.split():
        sys.modules[module] = None  # type: ignore[assignment]  # which makes an import fail
    for line in NAMES.strip().splitlines():
        name, *hidden = line.split()
        copy = ModuleType(name)
        vars(copy).update(vars(sys.modules[name]))
        for each in hidden:
            vars(copy).pop(each, None)
        sys.modules[name] = copy
    for name in list(sys.modules):
        if name.startswith("greeter_"):
            del sys.modules[name]


async def converse(certificate: str, authority: str) -> None:
    """Have names greeted over TCP and over TLS, and ask for what there is not; print it all."""
    from greeter_trio import open_greeter, serve_greeter  # noqa: PLC0415 - there is another one now
    from greeter_trio._net.endpoints import Fd, Unix  # noqa: PLC0415
    from greeter_trio._net.listeners import open_listeners  # noqa: PLC0415
    from greeter_trio._net.tls_contexts import client_context, server_context  # noqa: PLC0415

    tls = server_context(certificate, None), client_context(authority)
    for ours, theirs in ((None, None), tls):
        shutdown = trio.Event()
        serve = partial(serve_greeter, "127.0.0.1", 0, ssl_context=ours, shutdown=shutdown)
        async with trio.open_nursery() as nursery:
            (listener,) = await nursery.start(serve)
            port = listener.socket.getsockname()[1]
            async with open_greeter("127.0.0.1", port, ssl_context=theirs) as greeter:
                print(await greeter.greet("Ada"))
                async for greeting in greeter.greet_all(["Grace", "Hedy"]):
                    print(greeting)
                shutdown.set()
    for endpoint in (Unix("socket"), Fd(3)):
        try:
            await open_listeners([endpoint])
        except OSError as exc:
            print(exc)
    try:
        await open_greeter("unix:socket").__aenter__()
    except OSError as exc:
        print(exc)


if __name__ == "__main__":
    hide()
    if sys.argv[1] == "library":
        trio.run(converse, sys.argv[2], sys.argv[3])
    else:
        from greeter_trio._cli import main

        sys.exit(main())
