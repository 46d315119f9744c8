"""The command `client`: a conversation with a server, for a person or for a program."""

import signal
import sys
from collections.abc import Sequence

import trio

from .batch import Batch, report
from .opening import NoConversation, open_conversation
from .options import ClientOptions
from .output import print_error
from .signals import at_first_signal, available
from .status import ExitStatus
from .terminal import Terminal

# At these the terminal is put in order first.
_SIGNALS = available("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGBREAK")


def run_client(options: ClientOptions) -> int:
    """Have a conversation with a server, and return the exit status."""
    if sys.stdout is None:
        print_error("standard output is closed: there is nowhere to print greetings to")
        return ExitStatus.FAILED
    return trio.run(_converse_until_signal, options, _SIGNALS)


async def _converse_until_signal(options: ClientOptions, signals: Sequence[signal.Signals]) -> int:
    status = 0

    def interrupt(number: int) -> None:
        nonlocal status
        status = 128 + number
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        await nursery.start(at_first_signal, signals, interrupt, signal.SIG_IGN)
        status = await converse(options)
        nursery.cancel_scope.cancel()
    return status


async def converse(options: ClientOptions) -> ExitStatus:
    """Have the conversation, whatever signals come, and return the exit status."""
    is_batch = bool(options.names) or options.json or not sys.stdin.isatty()
    side = Batch(options) if is_batch else Terminal()
    try:
        async with open_conversation(options, side.handle_event) as (greeter, measurements):
            return await side.run(greeter, measurements)
    except NoConversation as exc:
        print_error(str(exc))
        if is_batch:
            await report(exc, options)
        return exc.status
