"""The server against a second one, which takes one byte at a time, in random conversations.

How a stream is cut cannot show, then, nor can more of a name wait than S6.2 allows. [F1, F2, M1]
"""

from itertools import pairwise

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from greeter_core import ConversationEnded, ExitReceived, Refused, ServerConfig, ServerConnection
from tests.support.laws import client_bytes, cut, law, seconds, server_configs
from tests.support.virtual import EOF, LINES, Driven, Said
from tests.support.words import PROMPT

from .model import NEVER, Model, Phase

blocks = st.lists(client_bytes, min_size=1, max_size=4).map(b"".join)


def joined(said: Said) -> Said:
    """Return what was said with all bytes of one moment in one piece."""
    pieces: Said = []
    for when, data in said:
        last_when, last = pieces[-1] if pieces else (None, None)
        if data is not EOF and last is not EOF and last_when == when:
            pieces[-1] = (when, last + data)
        else:
            pieces.append((when, data))
    return pieces


class Conversation(RuleBasedStateMachine):
    """Both must do the same at the same times."""

    @initialize(
        config=server_configs,
        start=st.sampled_from([0.0, 100.0]),
        full=st.sampled_from([False] * 5 + [True]),
    )
    def open(self, config: ServerConfig, start: float, full: bool) -> None:  # noqa: FBT001 - drawn
        self.now = start
        self.server = Driven(ServerConnection(config, now=start, full=full), start)
        self.model = Model(config, start, full=full)

    @rule(data=blocks, wait=seconds)
    def receive(self, data: bytes, wait: float) -> None:
        self.wait(wait)
        if not self.model.peer_has_ended:
            self.server.hears(data)
            self.model.receive(data, self.now)

    @rule(data=client_bytes)
    def drip(self, data: bytes) -> None:
        for byte in cut(data, [1]):
            self.receive(byte, 0.5)

    @rule(wait=st.one_of(seconds, st.sampled_from([0.0, 0.0, 400.0])))
    def wait(self, wait: float) -> None:
        self.now += wait
        self.server.waits(self.now)
        self.server.connection.handle_timeout(self.now)
        self.model.waits(self.now)

    @rule(wait=seconds)
    def look_late(self, wait: float) -> None:
        self.now += wait
        self.server.looks(self.now)
        self.model.pass_time(self.now)

    @rule(data=client_bytes, wait=seconds)
    def receive_late(self, data: bytes, wait: float) -> None:
        self.now += wait
        if not self.model.peer_has_ended:
            self.server.hears(data, self.now, late=True)
            self.model.receive(data, self.now)

    @rule(wait=seconds)
    def acknowledge_nothing(self, wait: float) -> None:
        self.now += wait
        self.server.does("data_in_flight", at=self.now, late=True)
        self.model.data_in_flight(self.now)

    @rule(wait=seconds, how=st.sampled_from(["eof", "shutdown", "lost"]), late=st.booleans())
    def end(self, wait: float, how: str, late: bool) -> None:  # noqa: FBT001 - drawn
        if late:
            self.now += wait
            self.server.now = self.now
        else:
            self.wait(wait)
        match how:
            case "eof":
                self.server.hears_eof()
                self.model.receive_eof(self.now)
            case "shutdown":
                self.server.shuts_down()
                self.model.shut_down(self.now)
            case "lost":
                self.server.loses_connection()
                self.model.lose_connection()

    @invariant()
    def same_words_at_the_same_times(self) -> None:
        assert joined(self.server.said) == joined(self.model.said)

    @invariant()
    def prompt_is_alone_and_late_enough(self) -> None:
        """Outside LINES, if no word follows it; and none is owed twice [S2.2, S2.4, S2.5, T1]."""
        server = self.server
        if server.connection.framing is not LINES:
            assert PROMPT + PROMPT not in server.stream
            for (before, _), (when, data) in pairwise(server.said):
                if data and data.endswith(PROMPT):
                    assert data == PROMPT
                    assert when >= before + self.model.config.pace

    @invariant()
    def same_deadline(self) -> None:
        assert self.server.connection.deadline == self.model.deadline()
        assert self.server.connection.prompt_owed == (self.model.pace < NEVER)

    @invariant()
    def same_state_and_framing(self) -> None:
        assert self.server.connection.state.name == self.model.phase.name
        if self.model.phase is Phase.OPEN:
            assert self.server.connection.framing is self.model.framing

    @invariant()
    def same_events(self) -> None:
        events = self.server.events
        refusals = [event.reason for event in events if isinstance(event, Refused)]
        exits = [event for event in events if isinstance(event, ExitReceived)]
        ends = [event.reason for event in events if isinstance(event, ConversationEnded)]
        assert self.server.names == self.model.names
        assert refusals == self.model.refusals
        assert len(exits) == self.model.exits
        assert ends == ([self.model.reason] if self.model.phase is Phase.ENDED else [])


Conversation.TestCase.settings = law(80)
TestConversation = Conversation.TestCase
