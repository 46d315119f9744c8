"""The words of the protocol, and names with the replies to them.

They are not imported from `greeter_core`, so that the replies of the measured server are compared
with something that it does not share.
"""

WELCOME = b"Welcome!\n"
PROMPT = b"What's your name?"
HELLO = b"Hello "  # the name and BANG follow
BANG = b"!\n"
GOODBYE = b"Goodbye!\n"
LF = b"\n"
EXIT_LINE = b"exit\n"

HOST = "127.0.0.1"
LINE_SIZE = 13  # bytes: a name of 12, and LF

Exchange = tuple[bytes, bytes]
"""Lines to send, and the bytes that must come back."""


def exchange(first: int, count: int = 1) -> Exchange:
    """Return `count` lines of 13 bytes, with names numbered from `first`, and the reply to them."""
    names = [b"name%08d" % number for number in range(first, first + count)]
    reply = b"".join(HELLO + name + BANG + PROMPT for name in names)
    return b"".join(name + LF for name in names), reply
