"""The command `demo`: TCP and the protocol, shown to a learner."""

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial

import trio

from greeter_core import TranscriptItem
from greeter_trio._net.listeners import ListenError
from greeter_trio._net.text import shown
from greeter_trio._show.demo import Demo
from greeter_trio._show.files import OutputError, write_file
from greeter_trio._show.live import LiveTrace, Output, flushed
from greeter_trio._show.namespace import enter_network_namespace
from greeter_trio._show.page import render_page
from greeter_trio._show.pcap import pcap
from greeter_trio._show.segments import Capture

from .output import end_without_reader, print_error, reader_has_gone
from .recording import STDOUT, open_outputs, open_trace
from .show_options import DemoOptions
from .signals import available, patience, until_signal
from .status import ExitStatus

_HOLD = 0.1  # seconds before something is drawn, so that segments find their places


def run_demo(options: DemoOptions) -> int:
    """Show the demonstration, and return the exit status."""
    failed = False

    def fail(message: str) -> None:
        """Take the message that says why nothing can be drawn, or recorded, any more."""
        nonlocal failed
        failed = True
        print_error(message)

    def fail_to_draw(message: str) -> None:
        if reader_has_gone(STDOUT):
            end_without_reader()
        fail(message)

    try:
        with contextlib.ExitStack() as closing:
            trace = open_trace(STDOUT, fail_to_draw)
            closing.callback(lambda: trace.close(patience()))
            files = closing.enter_context(open_outputs(options.record, None, fail))
            capture = closing.enter_context(_opened_capture(options, trace))
            status = trio.run(_run, options, capture, trace, files)
    except (ListenError, OutputError) as exc:
        print_error(str(exc))
        return ExitStatus.FAILED
    return ExitStatus.FAILED if failed and status == ExitStatus.DONE else status


@contextlib.contextmanager
def _opened_capture(options: DemoOptions, trace: LiveTrace) -> Iterator[Capture | None]:
    """Yield a capture of the loopback interface; None, and say why, if there is none."""
    capture = None
    if options.segments:
        try:
            capture = _open_capture()
        except OSError as exc:
            why = exc.strerror or str(exc)
            trace.say(f"The segments of TCP cannot be captured here: {why}.")
    if capture is None:
        trace.say("Those drawn below (┄) are not real: they are what TCP's rules let expect.")
        yield None
        return
    with capture:
        yield capture


def _open_capture() -> Capture:
    """Return a capture of this machine's loopback, or of one that is this process's own."""
    try:
        return Capture()
    except PermissionError:  # in a network of its own, any process may
        enter_network_namespace()
        return Capture()


async def _run(
    options: DemoOptions, capture: Capture | None, trace: LiveTrace, files: Sequence[Output]
) -> int:
    return await until_signal(
        available("SIGINT", "SIGTERM", "SIGHUP"), partial(_play, options, capture, trace, files)
    )


async def _play(
    options: DemoOptions, capture: Capture | None, trace: LiveTrace, files: Sequence[Output]
) -> int:
    outputs = [trace, *files]
    items: list[TranscriptItem] = []  # for the page

    def take(item: TranscriptItem) -> None:
        items.append(item)
        for output in outputs:
            output.take(item)

    status = ExitStatus.DONE
    demo = Demo(take, trace.say, capture, options.clients)
    trace.until = lambda: demo.now() - _HOLD
    with flushed(outputs):
        try:
            await demo.run()
        except* (OSError, trio.BrokenResourceError) as group:
            failure: BaseException = group
            while isinstance(failure, BaseExceptionGroup):
                failure = failure.exceptions[0]
            print_error(f"the demonstration broke off: {failure}")
            status = ExitStatus.FAILED
    if options.pcap and capture is None:
        print_error(f"no segments were captured, so nothing is written to {shown(options.pcap)}")
        status = ExitStatus.FAILED
    elif options.pcap:
        write_file(options.pcap, pcap(demo.segments))
    if options.page:
        write_file(options.page, render_page(items).encode())
    return status
