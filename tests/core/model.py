"""A second server, written from PROTOCOL.md alone: as plainly as possible, one byte at a time, and slow.

It shares nothing with `greeter_core` but the configuration and the names of what it reports. Where the two differ,
one of them, or the specification, is wrong.
"""

from enum import Enum, auto

from greeter_core import EndReason, Framing, Refusal, ServerConfig

from .helpers import EOF, FULL, GOODBYE, PROMPT, TOO_SLOW, WELCOME, hello, too_long

LF, CR = 0x0A, 0x0D
NEVER = float("inf")


class Phase(Enum):
    """Where the model is."""

    OPEN = auto()
    CLOSING = auto()
    ENDED = auto()


class Model:
    """What a server must do."""

    def __init__(self, config: ServerConfig, now: float, *, full: bool = False) -> None:
        self.config = config
        self.now = now
        self.phase = Phase.OPEN
        self.framing = config.framing
        self.tail = b""
        self.peer_has_ended = False
        # Deadlines; NEVER where the timer is stopped. A PROMPT is owed while `pace` is not NEVER.
        self.pace = self.quiet = self.idle = self.lifetime = self.linger = NEVER
        # What can be observed.
        self.said: list[tuple[float, bytes | None]] = []
        self.names: list[bytes] = []
        self.refusals: list[Refusal] = []
        self.exits = 0
        self.reason: EndReason | None = None
        if full:
            self.refuse(FULL, Refusal.FULL, now)  # S12.1
            return
        # S1.1, S9.1, S11.1
        self.said.append((now, WELCOME))
        self.owe(now)
        self.idle = now + config.idle_timeout
        self.lifetime = now + config.max_lifetime

    # Inputs

    def pass_time(self, now: float) -> None:
        """Let everything happen that is due (T1, T2, T4)."""
        self.now = max(self.now, now)
        while self.deadline() <= self.now:
            when = self.deadline()
            if self.pace == when:
                self.pace = NEVER
                self.said.append((when, PROMPT))  # S2.2
            elif self.quiet == when:
                self.framing, self.quiet = Framing.RAW, NEVER  # S4.2
                self.name(self.take_tail(), when)
            elif self.idle == when:
                self.refuse(TOO_SLOW, Refusal.IDLE, when)  # S9.1
            elif self.lifetime == when:
                self.say_goodbye(EndReason.LIFETIME, when)  # S11
            else:
                self.phase, self.linger = Phase.ENDED, NEVER  # S8.3

    def deadline(self) -> float:
        """Return when something is due next."""
        return min(self.pace, self.quiet, self.idle, self.lifetime, self.linger)

    def receive(self, data: bytes, now: float) -> None:
        """Receive one arrival."""
        self.pass_time(now)
        for byte in data:
            if self.phase is Phase.OPEN:
                self.receive_byte(byte)
        if self.phase is not Phase.OPEN:
            return  # S8.2
        if self.framing is Framing.RAW and self.tail:
            self.name(self.take_tail(), self.now)  # S4.3
        elif self.framing is Framing.AUTO:
            self.quiet = self.now + self.config.quiet  # S4.2

    def receive_byte(self, byte: int) -> None:
        """Receive one byte of an arrival."""
        if byte == LF:
            if self.config.framing is Framing.AUTO:
                self.framing, self.quiet = Framing.LINES, NEVER  # S3.2
                self.say_what_is_owed(self.now)  # S2.3
            name = self.take_tail()
            self.name(name[:-1] if name.endswith(b"\r") else name, self.now)  # S3.1
            return
        self.tail += bytes([byte])
        beyond = len(self.tail) - self.config.max_name_size
        if beyond > 1 or (beyond == 1 and byte != CR):
            self.refuse(too_long(self.config.max_name_size), Refusal.NAME_TOO_LONG, self.now)  # S6.2

    def receive_eof(self, now: float) -> None:
        """Receive the end of the client's stream."""
        self.pass_time(now)
        if self.peer_has_ended or self.phase is Phase.ENDED:
            return
        self.peer_has_ended = True
        if self.phase is Phase.OPEN and self.tail:
            self.name(self.take_tail(), self.now)  # S7.1
        if self.phase is Phase.OPEN:
            self.close(EndReason.EOF, self.now)  # S7.2
        self.phase, self.linger = Phase.ENDED, NEVER  # S8.2

    def shut_down(self, now: float) -> None:
        """Be told to shut down."""
        self.pass_time(now)
        if self.phase is Phase.OPEN:
            self.say_goodbye(EndReason.SHUTDOWN, self.now)

    def lose_connection(self) -> None:
        """Be told that the connection is lost."""
        if self.phase is not Phase.ENDED:
            self.reason = self.reason or EndReason.CONNECTION_LOST  # S8.4
            self.phase = Phase.ENDED
            self.pace = self.quiet = self.idle = self.lifetime = self.linger = NEVER

    # Names

    def take_tail(self) -> bytes:
        """Return the tail, and forget it."""
        tail, self.tail = self.tail, b""
        return tail

    def name(self, name: bytes, when: float) -> None:
        """Answer one name (S5, S6)."""
        if len(name) > self.config.max_name_size:
            self.refuse(too_long(self.config.max_name_size), Refusal.NAME_TOO_LONG, when)
        elif name == b"exit":
            self.exits += 1
            self.say(GOODBYE, when)
            self.close(EndReason.EXIT, when)
        else:
            if name:
                self.say(hello(name), when)
                self.names.append(name)
                self.idle = when + self.config.idle_timeout
            self.owe(when)

    # Words

    def say(self, word: bytes, when: float) -> None:
        """Say a word, after the PROMPT that is owed (S2.4)."""
        self.say_what_is_owed(when)
        self.said.append((when, word))

    def say_what_is_owed(self, when: float) -> None:
        """Say PROMPT, if it is owed."""
        if self.pace < NEVER:
            self.pace = NEVER
            self.said.append((when, PROMPT))

    def owe(self, when: float) -> None:
        """Owe a PROMPT (S2)."""
        if self.peer_has_ended:
            return  # S7.1
        if self.framing is Framing.LINES:
            self.said.append((when, PROMPT))  # S2.1
        else:
            self.pace = min(self.pace, when + self.config.pace)  # S2.5

    # The end

    def say_goodbye(self, reason: EndReason, when: float) -> None:
        """End the conversation without being asked to (S10)."""
        if self.framing is Framing.AUTO and self.tail:
            self.name(self.take_tail(), when)  # S10.1
        if self.phase is Phase.OPEN:
            self.say(GOODBYE, when)  # S10.2
            self.close(reason, when)

    def refuse(self, word: bytes, why: Refusal, when: float) -> None:
        """Say SORRY."""
        self.refusals.append(why)
        self.say(word, when)
        self.close(EndReason.REFUSED, when)

    def close(self, reason: EndReason, when: float) -> None:
        """Begin to close (S8.1)."""
        self.reason = reason
        self.phase = Phase.CLOSING
        self.tail = b""
        self.pace = self.quiet = self.idle = self.lifetime = NEVER
        self.linger = when + self.config.linger
        self.said.append((when, EOF))
