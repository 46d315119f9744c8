"""Exit statuses, and what else a client tells of a failure."""

import enum

import attrs


class ExitStatus(enum.IntEnum):
    """What the process tells its caller; a process that a signal N ended has 128 + N."""

    DONE = 0  # every name was greeted
    FAILED = 1  # input, output, a file, and all that is nothing of the below
    USAGE = 2
    TIMED_OUT = 3  # of `serve`: conversations were cut off when the grace ran out
    CANNOT_CONNECT = 4  # the name is not resolved, refused, unreachable
    TLS = 5  # the handshake or a certificate
    CONNECTION_LOST = 6  # reset, or closed without a last word
    NO_GREETER = 7  # what answers is no greeter
    REFUSED = 8  # the server said SORRY, or goodbye before it was asked
    INTERRUPTED = 130  # by Ctrl-C: 128 + SIGINT

    @property
    def code(self) -> str:
        """The name of this status in JSON."""
        return self.name.lower()


class Stage(enum.Enum):
    """What a client was waiting for when it failed; the value is its name in JSON."""

    RESOLVE = "resolve"  #: the addresses of the host
    CONNECT = "connect"  #: a connection
    TLS = "tls"  #: the end of the handshake
    WELCOME = "welcome"  #: the server's first word
    PROMPT = "prompt"  #: to be asked for a name
    GREETING = "greeting"  #: the greeting of a name
    GOODBYE = "goodbye"  #: the answer to `exit`


@attrs.frozen
class Failure:
    """What a client tells of a failure."""

    message: str
    """For people."""
    status: ExitStatus = ExitStatus.FAILED
    """The exit status of a client that ends with this failure."""
    stage: Stage | None = None
    """None for what failed on this side: input, output, a file."""

    def as_json(self) -> dict[str, str | None]:
        """Return the object `error`."""
        stage = self.stage and self.stage.value
        return {"code": self.status.code, "stage": stage, "message": self.message}
