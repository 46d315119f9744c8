"""The server against a second one, which handles one byte at a time (`model`), in random conversations."""

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from greeter_core import (
    ConversationEnded,
    ExitReceived,
    NamesReceived,
    Refused,
    ServerConfig,
    ServerConnection,
)

from .helpers import EOF, Driven, client_bytes, cut, law, seconds, server_configs
from .model import NEVER, Model, Phase


def joined(said: list[tuple[float, bytes | None]]) -> list[tuple[float, bytes | None]]:
    """Return what was said with all bytes of one moment in one piece."""
    pieces: list[tuple[float, bytes | None]] = []
    for when, data in said:
        last_when, last = pieces[-1] if pieces else (None, None)
        if data is not EOF and last is not EOF and last_when == when:
            pieces[-1] = (when, last + data)
        else:
            pieces.append((when, data))
    return pieces


class Conversation(RuleBasedStateMachine):
    """The same things happen to a server and to the model, and they must do the same at the same times."""

    @initialize(config=server_configs, start=st.sampled_from([0.0, 100.0]), full=st.sampled_from([False] * 5 + [True]))
    def open(self, config: ServerConfig, start: float, full: bool) -> None:  # noqa: FBT001 - drawn
        """Open the conversation."""
        self.now = start
        self.server = Driven(ServerConnection(config, now=start, full=full), start)
        self.model = Model(config, start, full=full)

    @rule(data=client_bytes, wait=seconds)
    def receive(self, data: bytes, wait: float) -> None:
        """Let bytes arrive, after a while."""
        self.wait(wait)
        if not self.model.peer_has_ended:
            self.server.hears(data)
            self.model.receive(data, self.now)

    @rule(data=client_bytes)
    def drip(self, data: bytes) -> None:
        """Let bytes arrive one by one."""
        for byte in cut(data, [1]):
            self.receive(byte, 0.5)

    @rule(wait=st.one_of(seconds, st.sampled_from([0.0, 0.0, 400.0])))
    def wait(self, wait: float) -> None:
        """Let time pass, every deadline being noticed."""
        self.now += wait
        self.server.waits(self.now)
        self.server.connection.handle_timeout(self.now)
        self.model.waits(self.now)

    @rule(wait=seconds)
    def look_late(self, wait: float) -> None:
        """Let time pass, and let the deadlines be noticed only then."""
        self.now += wait
        self.server.late(self.now)
        self.model.pass_time(self.now)

    @rule(data=client_bytes, wait=seconds)
    def receive_late(self, data: bytes, wait: float) -> None:
        """Let bytes arrive, after a while in which nobody noticed any deadline."""
        self.now += wait
        if not self.model.peer_has_ended:
            self.server.hears_late(data, self.now)
            self.model.receive(data, self.now)

    @rule(wait=seconds)
    def acknowledge_nothing(self, wait: float) -> None:
        """Let the kernel say that words are still on the way."""
        self.now += wait
        self.server.now = self.now
        self.server.connection.data_in_flight(self.now)
        self.server.take()
        self.model.data_in_flight(self.now)

    @rule(wait=seconds, how=st.sampled_from(["eof", "shutdown", "lost"]), late=st.booleans())
    def end(self, wait: float, how: str, late: bool) -> None:  # noqa: FBT001 - drawn
        """Let one of the things happen that end a conversation, in time or late."""
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
        """Compare what was said, and when, to the byte."""
        assert joined(self.server.said) == joined(self.model.said)

    @invariant()
    def same_deadline(self) -> None:
        """Compare when both want to be woken, and whether the kernel is to be asked."""
        assert self.server.connection.deadline == self.model.deadline()
        assert self.server.connection.prompt_owed == (self.model.pace < NEVER)

    @invariant()
    def same_state(self) -> None:
        """Compare the states and, while they are open, the framings."""
        assert self.server.connection.state.name == self.model.phase.name
        if self.model.phase is Phase.OPEN:
            assert self.server.connection.framing is self.model.framing

    @invariant()
    def same_reports(self) -> None:
        """Compare the names, the refusals and the ends that were reported."""
        events = self.server.events
        names = [name for event in events if isinstance(event, NamesReceived) for name in event.names]
        assert names == self.model.names
        assert [event.reason for event in events if isinstance(event, Refused)] == self.model.refusals
        assert len([event for event in events if isinstance(event, ExitReceived)]) == self.model.exits
        ends = [event.reason for event in events if isinstance(event, ConversationEnded)]
        assert ends == ([self.model.reason] if self.model.phase is Phase.ENDED else [])


Conversation.TestCase.settings = law(80)
TestConversation = Conversation.TestCase
