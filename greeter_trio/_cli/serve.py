"""The command `serve`: a server that people, signals and systemd can deal with."""

import argparse
import contextlib
import logging
import signal
import ssl
import sys
import time
from collections.abc import Sequence

import trio

from greeter_core import Framing, ServerConfig
from greeter_trio._failures import ExitStatus
from greeter_trio._net.listeners import (
    Fd,
    Listener,
    ListenError,
    Tcp,
    adopt,
    open_listeners,
    write_port_file,
)
from greeter_trio._net.optional import optional
from greeter_trio._net.text import complain
from greeter_trio._net.tls import TLSError, server_context
from greeter_trio._server import Service
from greeter_trio._service.limits import Limits, Terms, WhenFull
from greeter_trio._service.log import JsonFormatter, PatientHandler, logger

from . import systemd
from .signals import at_first_signal, available

_resource = optional("resource")


def serve(arguments: argparse.Namespace) -> int:
    """Run the server until a signal ends it, and return the exit status."""
    handler = PatientHandler(sys.stderr) if sys.stderr else logging.NullHandler()
    if arguments.log_format == "json":
        handler.setFormatter(JsonFormatter())
    logger.addHandler(handler)
    logger.setLevel(arguments.log_level.upper())
    _allow_descriptors()
    try:
        return trio.run(_serve, arguments)
    except (ListenError, TLSError) as exc:
        complain(str(exc))
        return ExitStatus.FAILED
    finally:
        logger.removeHandler(handler)


def _allow_descriptors() -> None:
    """Have as many descriptors as the system allows: the usual 1,024 are for programs that use select(2)."""
    if not _resource:
        return
    _, most = _resource.getrlimit(_resource.RLIMIT_NOFILE)
    with contextlib.suppress(
        OSError, ValueError
    ):  # it is less on some systems, in spite of what they say
        _resource.setrlimit(_resource.RLIMIT_NOFILE, (most, most))


async def _serve(arguments: argparse.Namespace) -> ExitStatus:
    service = Service(_terms(arguments))
    shutdown = trio.Event()
    endings = available("SIGINT", "SIGTERM", "SIGBREAK")
    orders = available("SIGUSR1")
    # Without TLS there is nothing to load again, and it may be that the terminal has gone.
    (orders if arguments.tls_cert else endings).extend(available("SIGHUP"))

    def shut_down(_: int) -> None:
        systemd.notify("STOPPING=1")
        shutdown.set()

    with contextlib.ExitStack() as held:
        listeners = await _listen(arguments)
        for listener in listeners:
            held.callback(listener.close)
        if arguments.port_file:
            write_port_file(arguments.port_file, listeners)
        async with trio.open_nursery() as nursery:
            await nursery.start(at_first_signal, endings, shut_down, signal.SIG_DFL)
            if orders:
                await nursery.start(_obey, orders, service, arguments)
            systemd.notify("READY=1")
            cut = await service.serve(listeners, shutdown)
            nursery.cancel_scope.cancel()
    if logger.isEnabledFor(logging.INFO):
        service.counters.log()
    return ExitStatus.TIMED_OUT if cut else ExitStatus.DONE


async def _listen(arguments: argparse.Namespace) -> list[Listener]:
    listeners = [adopt(sock, foreign=True, kept=True) for sock in systemd.activated()]
    if listeners and arguments.only_if_not_activated:
        return listeners
    endpoints = arguments.listen or [Tcp(arguments.host, arguments.port)]
    for listener in listeners:
        number = listener.socket.fileno()
        if Fd(number) in endpoints:
            msg = f"systemd has passed descriptor {number}, so it is listened on: leave out --listen fd:{number}"
            raise ListenError(msg)
    return listeners + await open_listeners(endpoints, reuse_port=arguments.reuse_port)


async def _obey(
    orders: Sequence[signal.Signals],
    service: Service,
    arguments: argparse.Namespace,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Do what signals ask for, besides to shut down."""
    with trio.open_signal_receiver(*orders) as signals:
        task_status.started()
        async for number in signals:
            if signal.Signals(number).name == "SIGUSR1":
                service.counters.log()
            else:
                systemd.notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
                try:
                    service.terms.ssl_context = _ssl_context(arguments)
                    logger.info(
                        "The TLS certificate was loaded again: it holds for new connections"
                    )
                except TLSError as exc:
                    logger.error("The TLS certificate stays as it was: %s", exc)  # noqa: TRY400 - it says all
                systemd.notify("READY=1")


def _terms(arguments: argparse.Namespace) -> Terms:
    return Terms(
        config=ServerConfig(
            framing=Framing(arguments.framing),
            idle_timeout=arguments.idle_timeout,
            max_lifetime=arguments.max_lifetime,
        ),
        limits=Limits(
            max_connections=arguments.max_connections,
            when_full=WhenFull(arguments.when_full),
            handshake_timeout=arguments.handshake_timeout,
            send_timeout=arguments.send_timeout,
            drain_delay=arguments.drain_delay,
            grace=arguments.grace,
        ),
        ssl_context=_ssl_context(arguments),
        proxy_protocol=arguments.proxy_protocol == "require",
    )


def _ssl_context(arguments: argparse.Namespace) -> ssl.SSLContext | None:
    if arguments.tls_cert is None:
        return None
    return server_context(arguments.tls_cert, arguments.tls_key, arguments.tls_client_ca)
