"""A second server, written from PROTOCOL.md alone: plain, one byte at a time, and slow.

It shares nothing with `greeter_core` but the configuration and the names of what it reports.
Where the two differ, one of them, or the specification, is wrong.
"""

from enum import Enum, auto

from greeter_core import EndReason, Framing, Refusal, ServerConfig
from tests.support.virtual import EOF, Said
from tests.support.words import FULL, GOODBYE, PROMPT, TOO_SLOW, WELCOME, hello, too_long

LF, CR = 0x0A, 0x0D
NEVER = float("inf")


class Phase(Enum):
    OPEN = auto()
    CLOSING = auto()
    ENDED = auto()


class Model:
    """What a server must do."""

    def __init__(self, config: ServerConfig, now: float, *, full: bool = False) -> None:
        self.config = config
        self.now = now  # of the present call
        self.owed_since = now
        self.phase = Phase.OPEN
        self.framing = config.framing
        self.tail = b""
        self.peer_has_ended = False
        # Deadlines; NEVER where the timer is stopped. A PROMPT is owed while `pace` is not NEVER.
        self.pace = self.quiet = self.idle = self.lifetime = self.linger = NEVER
        # What can be observed.
        self.said: Said = []
        self.names: list[bytes] = []
        self.refusals: list[Refusal] = []
        self.exits = 0
        self.reason: EndReason | None = None
        if full:
            self.refuse(FULL, Refusal.FULL)  # S12.1
            return
        # S1.1, S9.1, S11.1
        self.said.append((now, WELCOME))
        self.owe()
        self.idle = now + config.idle_timeout
        self.lifetime = now + config.max_lifetime

    # Inputs

    def set_time(self, now: float) -> None:
        """Take the time of a call (T4)."""
        self.now = max(self.now, now)

    def pass_time(self, now: float) -> None:
        """Let everything happen that is due (T1, T2, T4)."""
        self.set_time(now)
        self.fire()

    def waits(self, until: float) -> None:
        """Let time pass; every deadline is noticed on time."""
        while self.deadline() <= until:
            self.pass_time(self.deadline())
        self.set_time(until)

    def fire(self) -> None:
        """Let everything happen that is due: the judging timers as of their deadline (T1, T2)."""
        while self.deadline() <= self.now:
            when = self.deadline()
            if self.pace == when:
                self.pace = NEVER
                self.said.append((self.now, PROMPT))  # S2.2
            elif self.quiet == when:
                self.framing, self.quiet = Framing.RAW, NEVER  # S4.2
                self.name(self.take_tail(), when)
            elif self.idle == when:
                self.refuse(TOO_SLOW, Refusal.IDLE)  # S9.1
            elif self.lifetime == when:
                self.say_goodbye(EndReason.LIFETIME)  # S11
            else:
                self.phase, self.linger = Phase.ENDED, NEVER  # S8.3

    def deadline(self) -> float:
        return min(self.pace, self.quiet, self.idle, self.lifetime, self.linger)

    def receive(self, data: bytes, now: float) -> None:
        """Receive one arrival, and then fire what is due (T3)."""
        self.set_time(now)
        if self.phase is Phase.OPEN:  # S8.2
            self.receive_arrival(data)
        self.fire()

    def receive_arrival(self, data: bytes) -> None:
        raw = self.framing is Framing.RAW and b"\n" not in data
        if raw or self.config.framing is Framing.RAW:
            self.name(data, self.now)  # S3.3, S4.3
            return
        for byte in data:
            if self.phase is Phase.OPEN:
                self.receive_byte(byte)
        if self.phase is Phase.OPEN and self.framing is Framing.AUTO:
            self.quiet = self.now + self.config.quiet  # S4.2

    def data_in_flight(self, now: float) -> None:
        self.set_time(now)
        if self.pace < NEVER:  # S2.7
            self.pace = self.now + max(self.config.pace, (self.now - self.owed_since) / 4)
        self.fire()

    def receive_byte(self, byte: int) -> None:
        if byte == LF:
            self.framing, self.quiet = Framing.LINES, NEVER  # S3.2
            self.say_what_is_owed()  # S2.3
            name = self.take_tail()
            self.name(name[:-1] if name.endswith(b"\r") else name, self.now)  # S3.1
            return
        self.tail += bytes([byte])
        beyond = len(self.tail) - self.config.max_name_size
        if beyond > 1 or (beyond == 1 and byte != CR):
            self.refuse(too_long(self.config.max_name_size), Refusal.NAME_TOO_LONG)  # S6.2

    def receive_eof(self, now: float) -> None:
        """Receive the end of the client's stream, and then fire what is due (T3)."""
        self.set_time(now)
        if not (self.peer_has_ended or self.phase is Phase.ENDED):
            self.peer_has_ended = True
            if self.phase is Phase.OPEN and self.tail:
                self.name(self.take_tail(), self.now)  # S7.1
            if self.phase is Phase.OPEN:
                self.close(EndReason.EOF)  # S7.2
            self.phase, self.linger = Phase.ENDED, NEVER  # S8.2
        self.fire()

    def shut_down(self, now: float) -> None:
        self.pass_time(now)
        if self.phase is Phase.OPEN:
            self.say_goodbye(EndReason.SHUTDOWN)

    def lose_connection(self) -> None:
        if self.phase is not Phase.ENDED:
            self.reason = self.reason or EndReason.CONNECTION_LOST  # S8.4
            self.phase = Phase.ENDED
            self.pace = self.quiet = self.idle = self.lifetime = self.linger = NEVER

    # Names

    def take_tail(self) -> bytes:
        tail, self.tail = self.tail, b""
        return tail

    def name(self, name: bytes, when: float) -> None:
        """Answer one name that was complete then (S5, S6)."""
        if len(name) > self.config.max_name_size:
            self.refuse(too_long(self.config.max_name_size), Refusal.NAME_TOO_LONG)
        elif name == b"exit":
            self.exits += 1
            self.say(GOODBYE)
            self.close(EndReason.EXIT)
        else:
            if name:
                self.say(hello(name))
                self.names.append(name)
                self.idle = when + self.config.idle_timeout  # T1
            self.owe()

    # Words. They are said in the present call, and the time that they give counts from it (T1).

    def say(self, word: bytes) -> None:
        """Say a word, after the PROMPT that is owed (S2.4)."""
        self.say_what_is_owed()
        self.said.append((self.now, word))

    def say_what_is_owed(self) -> None:
        if self.pace < NEVER:
            self.pace = NEVER
            self.said.append((self.now, PROMPT))

    def owe(self) -> None:
        if self.peer_has_ended:
            return  # S7.1
        if self.framing is Framing.LINES:
            self.said.append((self.now, PROMPT))  # S2.1
        else:
            assert self.pace == NEVER  # S2.5
            self.owed_since, self.pace = self.now, self.now + self.config.pace

    # The end

    def say_goodbye(self, reason: EndReason) -> None:
        """End the conversation without being asked to (S10)."""
        if self.framing is Framing.AUTO and self.tail:
            self.name(self.take_tail(), self.now)  # S10.1
        if self.phase is Phase.OPEN:
            self.say(GOODBYE)  # S10.2
            self.close(reason)

    def refuse(self, word: bytes, why: Refusal) -> None:
        self.refusals.append(why)
        self.say(word)
        self.close(EndReason.REFUSED)

    def close(self, reason: EndReason) -> None:
        self.reason = reason
        self.phase = Phase.CLOSING  # S8.1
        self.tail = b""
        self.pace = self.quiet = self.idle = self.lifetime = NEVER
        self.linger = self.now + self.config.linger
        self.said.append((self.now, EOF))
