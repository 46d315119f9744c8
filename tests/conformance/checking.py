"""Run checks against a target: which server each of them gets, and what came of it."""

import contextlib
import math
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, Final

import attrs
import trio

from greeter_core import Framing, ServerConfig
from tests.support.words import WELCOME

from .peer import Fault, NoConnectionError, TooLateError, connected
from .playing import NotPlayableError
from .report import Outcome, Report, Verdict
from .targets import DEFAULTS, Process, Server, Target, TargetError

TRIES: Final = 3
"""How often a check is begun if its times cannot be kept."""

_SERVER = "the server"  # the topic of what no single check has found
_AT_ONCE = 60  # checks: they wait most of the time
_SERVERS = 16  # processes at the same time
_STARTS = 2  # processes that start at the same time, for which they need the CPU
_FRESH_SERVERS = 5  # for one group of checks, one after the other
_LIMIT = 30.0  # seconds that a check may take
_BREAK = 1.0  # seconds before the second try; twice as many before the third
_TICK, _STALL = 0.01, 0.02  # seconds: how often to look at the clock, and how late is too late
_SETTLING = 0.1  # seconds until a server has closed a connection
_LEAVING = 2.0  # seconds until it has closed all of them


@attrs.frozen(kw_only=True, eq=False)
class Check:
    """Something that a server must do."""

    topic: str
    title: str
    rule: str
    """What demands it: clauses of PROTOCOL.md, or a heading of INTEGRATING.md."""
    run: Callable[[Server], Awaitable[object]]
    """Raises `Fault`, `TooLateError`, `NotPlayableError` or `OSError`."""
    config: ServerConfig | None = None
    """The configuration that it takes, or None if any will do."""
    own_process: bool = False
    """Whether it stops the process, which therefore must be nobody else's."""
    obstacle: str = ""
    """Why it cannot be run against any server."""

    def __str__(self) -> str:
        return f"{self.topic}: {self.title} ({self.rule})"

    def outcome(self, verdict: Verdict, **more: Any) -> Outcome:
        """Return what came of it."""
        return Outcome(self.topic, self.title, self.rule, verdict, **more)


async def run_checks(target: Target, rounds: Iterable[Sequence[Check]]) -> Report:
    """Run all checks of a round at the same time, and then those of the next.

    Raises `TargetError` if nothing can be learnt: there is no server, or it is no greeter.
    """
    async with target.serving(None) as server:
        await _see_greeter(server)
    runner = _Runner(target)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(runner.watch_clock)
        for checks in rounds:
            await runner.run(checks)
        nursery.cancel_scope.cancel()
    return Report(runner.outcomes)


async def _see_greeter(server: Server) -> None:
    try:
        async with connected(server.address) as peer:
            await peer.hear(WELCOME)
    except (Fault, NoConnectionError, OSError) as exc:
        ended = server.process.ended if server.process else ""
        raise TargetError(ended or f"this is no greeter: {exc}") from None


class _Runner:
    def __init__(self, target: Target) -> None:
        self.outcomes: list[Outcome] = []
        self._target = target
        self._tries = Counter[Check]()
        self._blameless = Counter[Check]()  # tries that were late, and not because of this process
        self._stalled = -math.inf  # when this process was late last
        self._at_once = trio.CapacityLimiter(_AT_ONCE)
        self._starts = trio.CapacityLimiter(_STARTS)

    async def run(self, checks: Iterable[Check]) -> None:
        groups = defaultdict[object, list[Check]](list)
        for check in checks:
            obstacle = check.obstacle or self._target.obstacle(
                check.config, own_process=check.own_process
            )
            if obstacle:
                self._leave_out([check], obstacle)
            else:
                groups[check if check.own_process else check.config].append(check)
        largest_first = iter(sorted(groups.values(), key=len, reverse=True))  # they take longest
        async with trio.open_nursery() as nursery:
            for _ in range(_SERVERS):
                nursery.start_soon(self._run_groups, largest_first)

    async def watch_clock(self) -> None:
        """Notice when this process is late itself."""
        while True:
            before = trio.current_time()
            await trio.sleep(_TICK)
            if trio.current_time() > before + _TICK + _STALL:
                self._stalled = trio.current_time()

    async def _run_groups(self, groups: Iterator[Sequence[Check]]) -> None:
        """Run group by group on a server; what could not be run there, on another one."""
        for group in groups:
            rest = group
            for _ in range(_FRESH_SERVERS):
                if rest:
                    rest = await self._run_on_server(rest)
            self._leave_out(rest, "the server has ended too often")

    async def _run_on_server(self, checks: Sequence[Check]) -> Sequence[Check]:
        """Run checks on a server; return those that are to be run on another one."""
        rest: list[Check] = []
        async with AsyncExitStack() as stack:
            try:
                async with self._starts:
                    server = await stack.enter_async_context(self._target.serving(checks[0].config))
            except TargetError as exc:
                title, rule = "is there, and takes connections", "INTEGRATING.md"
                failed = partial(Outcome, _SERVER, title, rule, Verdict.FAILED)
                self.outcomes.append(failed(expected="a server", got=str(exc)))
                self._leave_out(checks, "there was no server for it")
                return []
            descriptors = await _descriptors_at_first(server)
            gone = trio.Event()

            async def run(check: Check) -> None:
                async with self._at_once:
                    if server.process and server.process.ended:
                        gone.set()
                    if gone.is_set() or not await self._try(check, server, gone):
                        rest.append(check)

            async with trio.open_nursery() as nursery:
                for check in checks:
                    nursery.start_soon(run, check)
            if server.process:
                await self._see_end(server.process, server.config, descriptors)
        return rest

    async def _try(self, check: Check, server: Server, gone: trio.Event) -> bool:
        """Run a check; return False if it has to be run again, on another server."""
        late = ""
        while self._tries[check] < TRIES:
            self._tries[check] += 1
            began = trio.current_time()
            try:
                self.outcomes.append(await self._outcome(check, server, gone))
            except TooLateError as exc:
                late, is_last = str(exc), self._tries[check] == TRIES
                await trio.sleep(_TICK if is_last else _BREAK * self._tries[check])
                self._blameless[check] += self._stalled < began
                if check.own_process and not is_last:
                    return False
            else:
                return True
        if self._blameless[check] == TRIES:
            expected, got = "words in time for the next step", f"{late}, {TRIES} times"
            self.outcomes.append(check.outcome(Verdict.FAILED, expected=expected, got=got))
        else:
            self._leave_out([check], "this machine was too busy")
        return True

    async def _outcome(self, check: Check, server: Server, gone: trio.Event) -> Outcome:
        began = trio.current_time()
        try:
            with trio.fail_after(_LIMIT):
                await check.run(server)
        except NotPlayableError as exc:
            return check.outcome(Verdict.LEFT_OUT, reason=str(exc))
        except NoConnectionError as exc:
            gone.set()
            expected, got = "a connection", str(exc)
        except Fault as exc:
            expected, got = exc.expected, exc.got
        except OSError as exc:
            expected, got = "that the connection lasts", exc.strerror or str(exc)
        except trio.TooSlowError:
            expected, got = f"that it is over in {_LIMIT:g} s", "no end"
        else:
            return check.outcome(Verdict.PASSED, seconds=trio.current_time() - began)
        if server.process and (ended := server.process.ended):
            got = f"{got}; {ended}"
        seconds = trio.current_time() - began
        return check.outcome(Verdict.FAILED, expected=expected, got=got, seconds=seconds)

    async def _see_end(
        self, process: Process, config: ServerConfig, descriptors: int | None
    ) -> None:
        """See that the process has nothing left of its conversations, and ends well."""
        title = f"ends well, with nothing left, after conversations {_described(config)}"
        outcome = partial(Outcome, _SERVER, title, "INTEGRATING.md, Checklist")
        began = trio.current_time()
        try:
            if descriptors is not None and not process.told_to_end:
                await _see_descriptors(process, descriptors)
            await process.end_in_order()
        except Fault as exc:
            seconds = trio.current_time() - began
            self.outcomes.append(
                outcome(Verdict.FAILED, expected=exc.expected, got=exc.got, seconds=seconds)
            )
        else:
            self.outcomes.append(outcome(Verdict.PASSED))

    def _leave_out(self, checks: Iterable[Check], reason: str) -> None:
        self.outcomes += [check.outcome(Verdict.LEFT_OUT, reason=reason) for check in checks]


def _described(config: ServerConfig) -> str:
    """Say how this differs from the default configuration."""
    changed = [
        f"{field.name}={value.value if isinstance(value, Framing) else value}"
        for field in attrs.fields(ServerConfig)
        if (value := getattr(config, field.name)) != getattr(DEFAULTS, field.name)
    ]
    return f"with {', '.join(changed)}" if changed else "with the default configuration"


async def _descriptors_at_first(server: Server) -> int | None:
    """Return how many descriptors are open when the first conversation is over."""
    if server.process is None or server.process.descriptors is None:
        return None
    with contextlib.suppress(Fault, NoConnectionError, OSError):  # the checks will say so
        async with connected(server.address) as peer:
            await peer.hear(WELCOME)
    await trio.sleep(_SETTLING)
    return server.process.descriptors


async def _see_descriptors(process: Process, wanted: int) -> None:
    """Wait until no more than so many descriptors are open."""
    give_up = trio.current_time() + _LEAVING
    while not process.ended and (found := process.descriptors or 0) > wanted:
        if trio.current_time() > give_up:
            expected = f"{wanted} open descriptors, as after the first client"
            raise Fault(expected, f"{found}, when all clients have gone")
        await trio.sleep(_TICK)
