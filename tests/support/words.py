"""The words of the wire, for all tests.

They are written out, not imported from `greeter_core`: the tests have their own opinion of what
is on the wire.
"""

WELCOME = b"Welcome!\n"
PROMPT = b"What's your name?"
HELLO = b"Hello "  # a name and BANG follow
BANG = b"!\n"
GOODBYE = b"Goodbye!\n"
TOO_SLOW = b"Sorry, no name came in time.\n"
FULL = b"Sorry, the server is full.\n"


def hello(name: bytes | str) -> bytes:
    return HELLO + (name.encode() if isinstance(name, str) else name) + BANG


def too_long(limit: int) -> bytes:
    return b"Sorry, names are limited to %d bytes.\n" % limit


ADA, BOB, EVE = hello("Ada"), hello("Bob"), hello("Eve")


SCRIPTS = ("小明", "Zoë", "\N{WOMAN}\u200d\N{MAN}\u200d\N{GIRL}", "Ἀριστοτέλης", "محمد", "नरेन्द्र")
"""Names in several scripts."""

ESCAPES = "\x1b]0;owned\x07\x1b[31m\x9b2J\x7f\b\u202e"
"""What would change a terminal's title, colour and cursor, or the order of its text."""
ESCAPES_SHOWN = r"\x1b]0;owned\x07\x1b[31m\x9b2J\x7f\x08\u202e"
