"""Short conversations, in every way in which they can go (`python -m tests.core.exhaustion`)."""

from typing import Any

import pytest

from greeter_core import ClientConnection, ServerConnection

from . import exploring
from .exhaustion import (
    AUTO,
    LINES,
    ONE,
    RAW,
    SHUTDOWNS,
    TWO,
    Scenario,
    briefly,
    of_original_client,
    of_original_server,
    pair,
)
from .exploring import Violation, client_config, explore, server_config


@pytest.mark.parametrize("scenario", [*briefly()], ids=lambda scenario: scenario.title)
def test_nothing_goes_wrong(scenario: Scenario) -> None:
    """Each world has a way out, and no name is lost [C4.1, E4, T1, T3, S2.7, S8.1, S8.3, C3.7]."""
    assert explore(scenario.world, scenario.check) > 100


# What it would find


class ForgetsPrompts(ServerConnection):
    def _timer_fired(self, *_: Any) -> None:
        pass


class ForgetsWhatSilenceEnded(ServerConnection):
    def _answer(self, name: bytes) -> None:
        super()._answer(name[:0])


class PutsOffPrompts(ServerConnection):
    def _timer_fired(self, *_: Any) -> None:
        self._owe_prompt()


class SaysExitOnce(ClientConnection):
    def _hello_heard(self, word: bytes) -> None:
        super()._hello_heard(word)
        self._waiting.clear()


class ForgetsWhatWaits(ClientConnection):
    def _unanswered(self) -> tuple[bytes, ...]:
        return tuple(name for name in self._sent if name != b"exit")


class ReportsTwice(ServerConnection):
    def connection_lost(self) -> None:
        super().connection_lost()
        self._events *= 2


@pytest.mark.parametrize(
    ("scenario", "what"),
    [
        (of_original_client(AUTO, TWO, ForgetsPrompts), "nothing can happen any more"),
        (of_original_client(AUTO, TWO, ForgetsWhatSilenceEnded), "not one word in each recv"),
        (of_original_client(RAW, TWO, asks_kernel=False), "not one word in each recv"),
        (of_original_server(AUTO, (), SaysExitOnce), "nothing can happen any more"),
        (of_original_client(RAW, TWO, PutsOffPrompts), "cannot end any more"),
        (pair(RAW, LINES, TWO, make_client=ForgetsWhatWaits), "a name was lost silently"),
        (
            pair(LINES, AUTO, ONE, SHUTDOWNS[2:], make_server=ReportsTwice),
            "reported too late",
        ),
    ],
    ids=lambda value: value.title if isinstance(value, Scenario) else value,
)
def test_what_goes_wrong_is_found(scenario: Scenario, what: str) -> None:
    """The moves that lead there are told, and they do lead there."""
    with pytest.raises(Violation, match=what) as found:
        explore(scenario.world, scenario.check)
    assert all(move[1] in str(found.value) for move in found.value.moves)


def test_all_on_which_the_future_depends_is_compared() -> None:
    """If a connection gets a further attribute, the search has to know of what kind it is."""
    kinds = (exploring.SHARED, exploring.TIMES, exploring.QUEUES, exploring.EMPTY)
    known = set().union(*kinds, exploring.PARTS, exploring.VALUES)
    for connection in (
        ServerConnection(server_config(AUTO), now=0),
        ClientConnection(client_config(AUTO), now=0),
    ):
        connection.shutdown(0)  # `_reason` is set now
        assert vars(connection).keys() - known == set()
        for part in exploring.PARTS & vars(connection).keys():
            slots = {*type(vars(connection)[part]).__slots__}
            assert slots <= {"_deadlines", "deadline", "_configured", "_max_name_size"} | {
                "framing",
                "tail",
            }
