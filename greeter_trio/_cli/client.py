"""The command `client`: a conversation with a server, for a person or for a program."""

import contextlib
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING

import trio

from greeter_core import ClientEvent, Welcomed

from .client_options import ClientOptions
from .opening import NoConversation, OnFailure, open_conversation
from .output import end_without_reader, print_error
from .progress import Progress
from .signals import available, until_signal
from .status import ExitStatus, Failure

if TYPE_CHECKING:
    from greeter_core import Recording

    from .batch import Batch
    from .terminal import Terminal

# At these the terminal is put in order first.
_SIGNALS = available("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGBREAK")


def run_client(options: ClientOptions) -> int:
    """Have a conversation with a server, or watch it, and return the exit status."""
    if sys.stdout is None:
        print_error("standard output is closed: there is nowhere to print greetings to")
        return ExitStatus.FAILED
    try:
        if options.trace or options.record:
            return _run_recorded(options)
        return trio.run(_converse, options, contextlib.nullcontext())
    except BrokenPipeError:
        end_without_reader()


def _run_recorded(options: ClientOptions) -> int:
    from greeter_trio._show.files import OutputError  # noqa: PLC0415 - most clients record nothing
    from greeter_trio._show.live import recorded  # noqa: PLC0415

    from .recording import STDERR, open_outputs  # noqa: PLC0415

    trace = STDERR if options.trace else None
    failed = False

    def fail(message: str) -> None:
        nonlocal failed
        failed = True
        print_error(message)

    try:
        with open_outputs(options.record, trace, fail) as outputs:
            status = trio.run(_converse, options, recorded(outputs))
    except OutputError as exc:
        print_error(str(exc))
        return ExitStatus.FAILED
    return ExitStatus.FAILED if failed and status == ExitStatus.DONE else status


async def _converse(
    options: ClientOptions, recorded: "AbstractContextManager[Recording | None]"
) -> int:
    with recorded as recording:
        if options.every is not None:
            from .watch import watch  # noqa: PLC0415 - most clients do not watch

            return await watch(options, recording)
        return await until_signal(_SIGNALS, partial(converse, options, recording))


async def converse(options: ClientOptions, recording: "Recording | None" = None) -> ExitStatus:
    """Have one conversation, whatever signals come, and return the exit status."""
    side = _side(options)
    progress = Progress()
    waiting = f"waiting for {options.endpoint}"
    is_welcomed = False

    def note_failure(attempt: int, failure: Failure) -> None:
        nonlocal waiting
        waiting = f"attempt {attempt}: {failure.message}"

    def handle_events(events: Sequence[ClientEvent]) -> None:
        nonlocal is_welcomed
        if not is_welcomed and Welcomed() in events:
            is_welcomed = True
            progress.clear()
        side.handle_events(events)

    reader_gone: BrokenPipeError | None = None  # to be raised without a group
    status = ExitStatus.FAILED
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            progress.keep_showing, lambda: side.progress() if is_welcomed else waiting
        )
        try:
            status = await _have(side, options, handle_events, recording, note_failure)
        except BrokenPipeError as exc:
            reader_gone = exc
        nursery.cancel_scope.cancel()
    if reader_gone:
        raise reader_gone
    return status


async def _have(
    side: "Batch | Terminal",
    options: ClientOptions,
    handle_events: Callable[[Sequence[ClientEvent]], object],
    recording: "Recording | None",
    on_failure: OnFailure,
) -> ExitStatus:
    try:
        async with open_conversation(options, handle_events, recording, on_failure) as conversation:
            return await side.run(conversation)
    except NoConversation as exc:
        print_error(str(exc))
        await side.report(exc)
        return exc.failure.status


def _side(options: ClientOptions) -> "Batch | Terminal":
    """Return the program's side of the conversation, or a person's."""
    if options.names or options.json or not sys.stdin.isatty():
        from .batch import Batch  # noqa: PLC0415 - a client needs one of these two

        return Batch(options)
    from .terminal import Terminal  # noqa: PLC0415

    return Terminal(options)
