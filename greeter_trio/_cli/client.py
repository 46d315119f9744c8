"""The command `client`: call a server, as a person or as a tool."""

import argparse
import signal
import sys
from collections.abc import Awaitable, Callable
from functools import partial

import trio

from greeter_core import ClientConfig, Framing
from greeter_trio._failures import ExitStatus
from greeter_trio._net.connecting import Call, Facts, NoConversation, Target, welcomed
from greeter_trio._net.proxy import encode_v1, encode_v2
from greeter_trio._net.text import complain
from greeter_trio._net.tls import TLSError, client_context

from . import batch, terminal
from .signals import at_first_signal, available

# At these the terminal is put in order first.
_SIGNALS = available("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGBREAK")
_ENCODERS = {None: None, "v1": encode_v1, "v2": encode_v2}
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 1.0  # seconds between attempts


def call(arguments: argparse.Namespace) -> int:
    """Have a conversation with a server, and return the exit status."""
    if sys.stdin is None and not arguments.names:
        arguments.error(
            "standard input is closed: give NAMEs as arguments, or names on standard input"
        )
    if sys.stdout is None:
        complain("standard output is closed: there is nowhere to print greetings to")
        return ExitStatus.FAILED
    return trio.run(_converse_until_signal, arguments)


async def _converse_until_signal(arguments: argparse.Namespace) -> int:
    status = 0

    def interrupt(number: int) -> None:
        nonlocal status
        status = 128 + number
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        await nursery.start(at_first_signal, _SIGNALS, interrupt, signal.SIG_IGN)
        status = await _converse(arguments)
        nursery.cancel_scope.cancel()
    return status


async def _converse(arguments: argparse.Namespace) -> ExitStatus:
    names, as_json = arguments.names, arguments.json
    config = ClientConfig(framing=Framing(arguments.framing), reply_timeout=arguments.timeout)
    is_tool = names or as_json or not sys.stdin.isatty()
    converse = (
        partial(batch.converse, names=names, as_json=as_json) if is_tool else terminal.converse
    )
    try:
        return await keep_calling(_target(arguments), config, arguments.retry_for, converse)
    except NoConversation as exc:
        complain(str(exc))
        if is_tool:
            await batch.report(exc, names, as_json=as_json)
        return exc.status


async def keep_calling(
    target: Target,
    config: ClientConfig,
    retry_for: float,
    converse: Callable[[Call], Awaitable[ExitStatus]],
) -> ExitStatus:
    """Call a server until it answers, and converse with it.

    The last attempt begins when `retry_for` seconds are over, if none is still going on then.
    Raises `NoConversation`, that of the last attempt.
    """
    give_up_at = trio.current_time() + retry_for
    attempt, pause = 0, _FIRST_PAUSE
    while True:
        attempt += 1
        try:
            async with welcomed(target, config) as answered:
                return await converse(answered)
        except NoConversation as exc:
            exc.attempts = attempt
            if exc.hopeless or trio.current_time() >= give_up_at:
                raise
            await trio.sleep_until(min(trio.current_time() + pause, give_up_at))
        pause = min(2 * pause, _LONGEST_PAUSE)


def _target(arguments: argparse.Namespace) -> Target:
    context = None
    if arguments.tls:
        try:
            context = client_context(arguments.ca, arguments.cert, arguments.key)
        except TLSError as exc:
            raise NoConversation(str(exc), ExitStatus.FAILED, Facts()) from exc
    return Target(arguments.host, arguments.port, context, _ENCODERS[arguments.send_proxy])
