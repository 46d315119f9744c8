"""The command `client`: a conversation with a server, for a person or for a program."""

import sys
from collections.abc import Sequence
from functools import partial

import trio

from greeter_core import Recording
from greeter_trio._show.files import OutputError
from greeter_trio._show.live import Output, recorded

from .batch import Batch, report
from .opening import NoConversation, open_conversation
from .options import ClientOptions
from .output import print_error
from .recording import STDERR, open_outputs
from .signals import available, until_signal
from .status import ExitStatus
from .terminal import Terminal

# At these the terminal is put in order first.
_SIGNALS = available("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGBREAK")


def run_client(options: ClientOptions) -> int:
    """Have a conversation with a server, and return the exit status."""
    if sys.stdout is None:
        print_error("standard output is closed: there is nowhere to print greetings to")
        return ExitStatus.FAILED
    where = STDERR if options.trace else None
    try:
        with open_outputs(options.record, where, print_error) as outputs:
            return trio.run(_converse, options, outputs)
    except OutputError as exc:
        print_error(str(exc))
        return ExitStatus.FAILED


async def _converse(options: ClientOptions, outputs: Sequence[Output]) -> int:
    with recorded(outputs) as recording:
        return await until_signal(_SIGNALS, partial(converse, options, recording))


async def converse(options: ClientOptions, recording: Recording | None = None) -> ExitStatus:
    """Have the conversation, whatever signals come, and return the exit status."""
    is_batch = bool(options.names) or options.json or not sys.stdin.isatty()
    side = Batch(options) if is_batch else Terminal()
    try:
        async with open_conversation(options, side.handle_event, recording) as (
            greeter,
            measurements,
        ):
            return await side.run(greeter, measurements)
    except NoConversation as exc:
        print_error(str(exc))
        if is_batch:
            await report(exc, options)
        return exc.status
