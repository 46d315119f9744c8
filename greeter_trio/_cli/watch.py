"""`client --every`: conversations again and again, a line for each, and a summary, as ping has it.

One task begins the conversations, each a task of its own, so that a slow one does not delay the
next. Their lines come in the order in which they ended; the statistics take them in the order in
which they began. One task prints, and what waits for it is bounded: the watch waits for a reader
that does not read.
"""

import datetime as dt
import itertools
import json
import signal
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import attrs
import trio

from greeter_core import LocalProtocolError
from greeter_trio import ConversationFailed
from greeter_trio._net.text import pluralized

from . import stdio
from .client_options import ClientOptions
from .early import end_by_signal
from .opening import Conversation, Measurements, NoConversation, Opener, milliseconds_since
from .output import print_error, wants_colour
from .signals import available, handled, patience
from .statistics import Distribution, Statistics
from .status import ExitStatus, Failure

if TYPE_CHECKING:
    from greeter_core import Recording

_NAME = b"probe"  # what is asked where there is no NAME
_MOST = 1000  # conversations that go on, or wait for an earlier one to be counted
_UNPRINTED = 1000  # lines
_RED, _PLAIN = "\x1b[31m", "\x1b[0m"


async def watch(options: ClientOptions, recording: "Recording | None" = None) -> int:
    """Watch a server until Ctrl-C or `options.count`, and return the exit status."""
    try:
        watching = _Watch(options, Opener(options), recording)
    except NoConversation as exc:
        print_error(str(exc))
        return exc.failure.status
    ended_by = signal.SIGINT  # which is the usual end of a watch

    def interrupt(number: int) -> None:
        nonlocal ended_by
        ended_by = signal.Signals(number)
        watching.stop()

    numbers = available("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGBREAK")
    with handled(numbers, interrupt, second=end_by_signal, ends=True):
        await watching.run()
    return watching.status if ended_by is signal.SIGINT else 128 + ended_by


@attrs.define(eq=False)
class _Visit:
    """One conversation."""

    number: int
    began: float
    measurements: Measurements = attrs.field(factory=Measurements)
    name: bytes = b""
    """The last one that was asked."""
    greeted: int = 0
    """How many names were greeted."""
    greeting_ms: float | None = None
    """How long the slowest of their greetings took."""
    failure: Failure | None = None
    ended: float | None = None


class _Watch:
    def __init__(
        self, options: ClientOptions, opener: Opener, recording: "Recording | None"
    ) -> None:
        self._options = options
        self._opener = opener
        self._recording = recording
        self._names = [name for name in options.names if name != b"exit"] or [_NAME]
        self._has_colour = not options.json and wants_colour(1)
        self._statistics = Statistics()
        self._last_failure: Failure | None = None
        self._told = ""  # the message of the line before
        self._talking = trio.CancelScope()
        self._places = trio.CapacityLimiter(_MOST)
        self._uncounted: dict[int, _Visit] = {}  # in the order in which they began
        self._printer, self._to_print = trio.open_memory_channel[str](_UNPRINTED)
        self._unfinished: list[_Visit] = []  # that went on when it was ended
        self._output_failure: OSError | None = None
        self._epoch = time.time() - trio.current_time()

    @property
    def status(self) -> ExitStatus:
        """The exit status: that of the last conversation that has failed.

        Where no conversation has ended, those that go on got no answer in time.
        """
        if self._last_failure:
            return self._last_failure.status
        is_hanging = self._unfinished and not self._statistics.conversations
        return ExitStatus.TIMED_OUT if is_hanging else ExitStatus.DONE

    def stop(self) -> None:
        """End it now. Conversations that go on are unfinished."""
        self._talking.cancel()

    async def run(self) -> None:
        """Have the conversations, print their lines, and the summary."""
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._print, nursery.cancel_scope)
            if not self._options.json:
                how = f"every {self._options.every:g} s, times in ms; Ctrl-C ends it"
                await self._put(f"Watching {self._options.endpoint} {how}\n")
            with self._talking:
                await self._begin_all()
            self._unfinished = [each for each in self._uncounted.values() if each.ended is None]
            for visit in self._unfinished:
                del self._uncounted[visit.number]
            self._count()
            nursery.cancel_scope.deadline = trio.current_time() + patience()
            await self._put(self._summary(trio.current_time() - began))
            self._printer.close()
        if isinstance(self._output_failure, BrokenPipeError):
            raise self._output_failure  # here, and not in the nursery, which makes a group of it
        if self._output_failure:
            why = self._output_failure.strerror
            self._last_failure = Failure(f"cannot write to standard output: {why}")
            print_error(self._last_failure.message)

    # The conversations

    async def _begin_all(self) -> None:
        every, count = self._options.every or 0.0, self._options.count
        begin_at = trio.current_time()
        async with trio.open_nursery() as nursery:
            for number in itertools.count(1) if count is None else range(1, count + 1):
                await trio.sleep_until(begin_at)
                visit = _Visit(number, 0.0)
                await self._places.acquire_on_behalf_of(visit)
                visit.began = trio.current_time()
                self._epoch = time.time() - visit.began  # anew: clocks are set, machines suspended
                self._uncounted[number] = visit
                nursery.start_soon(self._visit, visit)
                begin_at = max(begin_at + every, visit.began)

    async def _visit(self, visit: _Visit) -> None:
        try:
            async with self._opener.open(lambda _: None, self._recording) as conversation:
                visit.measurements = conversation.measurements
                await self._have(conversation, visit)
        except NoConversation as exc:
            visit.failure, visit.measurements = exc.failure, exc.measurements
        visit.ended = trio.current_time()
        self._last_failure = visit.failure or self._last_failure
        self._count()
        await self._put(self._object(visit) if self._options.json else self._line(visit))

    async def _have(self, conversation: Conversation, visit: _Visit) -> None:
        """Have all names greeted, one after the other, and say exit."""
        try:
            async with conversation.greeter as greeter:
                for visit.name in self._names:
                    start = trio.current_time()
                    with suppress(LocalProtocolError):  # it has ended, which the next call tells
                        greeter.ask([visit.name])
                    await greeter.wait_greeted(visit.greeted + 1)
                    visit.greeting_ms = max(visit.greeting_ms or 0.0, milliseconds_since(start))
                    visit.greeted += 1
        except ConversationFailed as exc:
            is_done = visit.greeted == len(self._names)
            visit.failure = conversation.failure(exc, has_asked_exit=is_done)

    def _count(self) -> None:
        """Count the conversations that have ended, as far as all before them have."""
        for number, visit in list(itertools.takewhile(_has_ended, self._uncounted.items())):
            del self._uncounted[number]
            self._places.release_on_behalf_of(visit)
            statistics, found = self._statistics, visit.measurements
            code = visit.failure.status.code if visit.failure else None
            statistics.add(visit.began, visit.ended or visit.began, code)
            for distribution, value in (
                (statistics.connect, found.connect_ms),
                (statistics.first_byte, found.first_byte_ms),
                (statistics.greeting, visit.greeting_ms),
            ):
                if value is not None:
                    distribution.add(value)

    # What is printed

    async def _put(self, text: str) -> None:
        try:
            self._printer.send_nowait(text)
        except trio.WouldBlock:
            await self._printer.send(text)

    async def _print(self, everything: trio.CancelScope) -> None:
        try:
            async for text in self._to_print:
                data = text.encode(sys.stdout.encoding, "backslashreplace")
                await stdio.in_thread(stdio.write_all, data)
        except OSError as exc:
            self._output_failure = exc
            everything.cancel()

    def _time(self, at: float) -> dt.datetime:
        return dt.datetime.fromtimestamp(self._epoch + at, dt.UTC)

    def _rfc3339(self, at: float) -> str:
        return self._time(at).isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def _clock(self, at: float, spec: str = "milliseconds") -> str:
        """Return the time of day, as a clock on the wall has it."""
        return self._time(at).astimezone().time().isoformat(spec)

    def _object(self, visit: _Visit) -> str:
        name = visit.name.decode("utf-8", "replace") or None
        fields = {
            "conversation": visit.number,
            "time": self._rfc3339(visit.began),
            "name": name,
            "greeting": None if visit.failure or name is None else f"Hello {name}!",
            **attrs.asdict(visit.measurements),
            "greeting_ms": visit.greeting_ms,
        }
        if visit.failure:
            fields["error"] = visit.failure.as_json()
        return json.dumps(fields) + "\n"

    def _line(self, visit: _Visit) -> str:
        start = f"{self._clock(visit.began, 'seconds')}{visit.number:5} "
        if visit.failure:
            message = visit.failure.message
            text = f"{visit.failure.status.code}, as before" if message == self._told else message
            self._told = message
            return f"{start}{_RED}{text}{_PLAIN}\n" if self._has_colour else f"{start}{text}\n"
        self._told = ""
        found = visit.measurements
        return (
            f"{start}{found.peer}  connect{found.connect_ms:6.2f}  "
            f"first byte{found.first_byte_ms:6.2f}  greeting{visit.greeting_ms:6.2f}\n"
        )

    def _summary(self, seconds: float) -> str:
        found = self._statistics
        if self._options.json:
            summary = {**found.as_json(self._rfc3339), "unfinished": len(self._unfinished)}
            return json.dumps({"summary": summary}) + "\n"
        failed, number = found.failed.total(), found.conversations
        conversations = pluralized(number, "conversation")
        lines = [
            "",  # behind a ^C that the terminal has drawn
            f"--- {self._options.endpoint}: {conversations} in {seconds:.1f} s ---",
            f"{number - failed} greeted, {failed} failed",
        ]
        if failed:
            codes = ", ".join(f"{code} {times}" for code, times in found.failed.most_common())
            lines[-1] += f" ({failed / number:.2%}): {codes}"
        if self._unfinished:
            since = trio.current_time() - self._unfinished[0].began
            lines[-1] += f", {len(self._unfinished)} unfinished, the oldest for {since:.1f} s"
        if outage := found.longest_outage:
            end = self._clock(outage.ended) if outage.is_over else "now"
            began = self._clock(outage.began)
            lines.append(f"longest outage {outage.seconds:.2f} s, from {began} to {end}")
        if number > failed or found.connect.as_json():
            lines.append(f"{'ms (±1 %)':12}{'min':>10}{'median':>10}{'99 %':>10}{'max':>10}")
            for title, distribution in (
                ("connect", found.connect),
                ("first byte", found.first_byte),
                ("greeting", found.greeting),
            ):
                lines.append(f"{title:12}{_row(distribution)}")
        return "".join(f"{line}\n" for line in lines)


def _has_ended(item: tuple[int, _Visit]) -> bool:
    return item[1].ended is not None


def _row(distribution: Distribution) -> str:
    values = distribution.as_json()
    return "".join(f"{_digits(value):>10}" for value in (values or {}).values()) or f"{'-':>10}" * 4


def _digits(value: float) -> str:
    """Return a duration with as many digits as it is known to."""
    return f"{value:.0f}" if value >= 1000 else f"{value:.2f}" if value >= 1 else f"{value:.3f}"
