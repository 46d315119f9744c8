"""The words of the protocol, byte for byte (PROTOCOL.md, W)."""

WELCOME = b"Welcome!\n"
PROMPT = b"What's your name?"
HELLO = b"Hello "  # a name and BANG follow
BANG = b"!\n"
GOODBYE = b"Goodbye!\n"
SORRY = b"Sorry, "  # a reason and STOP follow
STOP = b".\n"
EXIT = b"exit"

LF = b"\n"
CR = b"\r"
CRLF = CR + LF
# As numbers: `LF_BYTE in data` takes 15 ns, and `LF in data` 100 (Python 3.11).
(LF_BYTE,) = LF
(CR_BYTE,) = CR
EXIT_LINE = EXIT + LF
BETWEEN_NAMES = BANG + PROMPT + HELLO  # what stands between two names that are greeted in a row

MAX_NAME_SIZE = 1024  # bytes, terminator not counted; the server's can be configured
MAX_SORRY_SIZE = 1024  # bytes, LF included; what a client accepts
MAX_WORD_SIZE = len(HELLO) + MAX_NAME_SIZE + len(LF + BANG)  # bytes, of words that are no SORRY


def hello(name: bytes) -> bytes:
    """Return the greeting of one name."""
    return HELLO + name + BANG


def sorry(reason: str) -> bytes:
    """Return the refusal that gives this reason."""
    return SORRY + reason.encode("ascii") + STOP
