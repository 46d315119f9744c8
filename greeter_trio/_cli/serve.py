"""The command `serve`: a server that people, signals and systemd can deal with."""

import contextlib
import errno
import gc
import logging
import signal
import socket
import time
from collections.abc import Sequence
from functools import partial

import attrs
import trio

from greeter_trio._net.endpoints import Fd
from greeter_trio._net.listeners import Listener, ListenError, adopt, open_listeners
from greeter_trio._net.notices import NOTICE_PAUSE
from greeter_trio._net.optional import optional
from greeter_trio._net.tls_contexts import TLSError
from greeter_trio._server import serve
from greeter_trio._service.sessions import Sessions
from greeter_trio._service.settings import Settings
from greeter_trio._show.files import OutputError
from greeter_trio._show.live import Output, recorded

from . import systemd
from .certificate import Certificate
from .early import end_by_signal
from .log import logger, make_handler
from .output import print_error
from .port_file import write_port_file
from .recording import STDOUT, open_outputs
from .serve_options import ServeOptions
from .signals import available, handled
from .status import ExitStatus

_resource = optional("resource")

_ADVICE = {}
if hasattr(socket, "SO_REUSEPORT"):
    _ADVICE[errno.EADDRINUSE] = (
        "choose another port; servers share one only if each of them has --reuse-port"
    )


def run_server(options: ServeOptions) -> int:
    """Run the server until a signal ends it, and return the exit status."""
    handler = make_handler(options.log_format, has_time=options.log_time)
    logger.addHandler(handler)
    logger.setLevel(options.log_level.upper())
    _raise_descriptor_limit()
    gc.freeze()  # what is imported stays; to look at it again costs short conversations some 7 %
    try:
        with open_outputs(
            options.record, STDOUT if options.trace else None, logger.warning
        ) as outputs:
            return trio.run(_serve, options, outputs)
    except ListenError as exc:
        print_error(exc.with_advice(_ADVICE))
    except (OutputError, TLSError) as exc:
        print_error(str(exc))
    finally:
        logger.removeHandler(handler)
        handler.close()
    return ExitStatus.FAILED


def _raise_descriptor_limit() -> None:
    """Allow as many descriptors as possible: the usual 1,024 are for programs with select(2)."""
    if not _resource:
        return
    _, most = _resource.getrlimit(_resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # some systems allow less than they say
        _resource.setrlimit(_resource.RLIMIT_NOFILE, (most, most))


async def _serve(options: ServeOptions, outputs: Sequence[Output]) -> ExitStatus:
    certificate = Certificate(options.tls)
    settings = Settings(
        config=options.config,
        limits=options.limits,
        ssl_context=certificate.load(),
        proxy_protocol=options.proxy_protocol,
    )
    shutdown = trio.Event()
    opening = trio.CancelScope()  # while names are resolved
    endings = available("SIGINT", "SIGTERM", "SIGBREAK")
    others = available("SIGUSR1")
    # Without TLS there is nothing to load again, and the terminal may have gone.
    (others if options.tls else endings).extend(available("SIGHUP"))

    def shut_down(_: int) -> None:
        systemd.notify("STOPPING=1")
        shutdown.set()
        opening.cancel()

    with contextlib.ExitStack() as closing:
        closing.enter_context(handled(endings, shut_down, second=end_by_signal, ends=True))
        with opening:
            listeners = await _listen(options)
            for listener in listeners:
                closing.callback(listener.close)  # `serve` may not get to run
        if shutdown.is_set():
            return ExitStatus.DONE
        write_later = write_port_file(options.port_file, listeners) if options.port_file else None
        recording = closing.enter_context(recorded(outputs))
        sessions = Sessions(attrs.evolve(settings, recording=recording))
        closing.enter_context(handled(others, partial(_handle_signal, sessions, certificate)))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(certificate.watch)
            nursery.start_soon(_tell_warnings, sessions)
            if write_later:
                nursery.start_soon(write_later)
            systemd.notify("READY=1")
            cut = await serve(listeners, sessions, shutdown)
            nursery.cancel_scope.cancel()
    sessions.tell_warnings()
    if logger.isEnabledFor(logging.INFO):
        sessions.counters.log()
    return ExitStatus.TIMED_OUT if cut else ExitStatus.DONE


async def _tell_warnings(sessions: Sessions) -> None:
    while True:
        await trio.sleep(NOTICE_PAUSE)
        sessions.tell_warnings()


async def _listen(options: ServeOptions) -> list[Listener]:
    listeners = [adopt(sock, shared=True, kept=True) for sock in systemd.activated()]
    if listeners and options.endpoints_are_default:
        return listeners
    for listener in listeners:
        number = listener.socket.fileno()
        if Fd(number) in options.endpoints:
            raise ListenError(
                f"systemd has passed descriptor {number}, so the server listens on it: "
                f"leave out --listen fd:{number}"
            )
    return listeners + await open_listeners(
        options.endpoints, reuse_port=options.reuse_port, unix_mode=options.unix_mode
    )


def _handle_signal(sessions: Sessions, certificate: Certificate, number: int) -> None:
    """Log counters at SIGUSR1, load the certificate again at SIGHUP."""
    if signal.Signals(number).name == "SIGUSR1":
        sessions.counters.log()
    else:
        systemd.notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        _load_certificate_again(sessions, certificate)
        systemd.notify("READY=1")


def _load_certificate_again(sessions: Sessions, certificate: Certificate) -> None:
    try:
        context = certificate.load(again=True)
    except TLSError as exc:
        logger.error("The TLS certificate stays as it was: %s", exc)  # noqa: TRY400 - it says all
    else:
        sessions.use_ssl_context(context)
        logger.info("The TLS certificate was loaded again: it holds for new connections")
