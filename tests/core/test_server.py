"""The server, clause by clause (PROTOCOL.md, S): an example for each rule and for each edge."""

import math
import re
from itertools import pairwise

import pytest

import greeter_core as core
from greeter_core import EndReason, Refusal, Refused
from tests.support.virtual import AUTO, EOF, LINES, RAW, Server, perform, plays, spoken
from tests.support.words import FULL, PROMPT, TOO_SLOW, WELCOME, hello, too_long


@plays(r"""
opening: WELCOME at once, PROMPT after `pace` [S1.1, S2.2]
    AUTO/RAW | 0 next 1 | 0 S WELCOME | 1- is owing | 1 S PROMPT | 1 is not-owing | 99 wait
opening in one piece [S1.1, S2.1]
    LINES | 0 S WELCOME PROMPT | 99 wait

PROMPT at once after each HELLO in LINES [S2.1]
    LINES asked | 1 C Ada\nBob\n | 1 S HELLO:Ada PROMPT HELLO:Bob PROMPT | 99 wait
PROMPT `pace` after HELLO [S2.2]
    RAW asked | 5 C Ada | 5 S HELLO:Ada | 5 next 6 | 6- is owing | 6 S PROMPT | 9 wait
PROMPT without pace, still a piece of its own [S2.2]
    RAW pace=0 | 0 next 0 | 0 S WELCOME | 0 S PROMPT | 9 wait
PROMPT comes before its time when the first LF proves LINES [S2.3]
    AUTO | 0 S WELCOME | 0.5 C Ada\n | 0.5 S PROMPT HELLO:Ada PROMPT | 0.5 next 100.5 | 50 wait
PROMPT comes before its time when a blank first line proves LINES [S2.3, S5.1]
    AUTO | 0 S WELCOME | 0.5 C \n | 0.5 S PROMPT PROMPT | 50 wait
PROMPT comes before its time when a RAW guess heals [S2.3, S3.2]
    AUTO asked | 1 C Ada | 3 S HELLO:Ada | 4 S PROMPT | 5 C Bob | 5 S HELLO:Bob | 5.5 is RAW
    | 5.5 C \n | 5.5 S PROMPT PROMPT | 5.5 is LINES | 50 wait
PROMPT before the HELLO to an early name, and another after it [S2.4, S2.2]
    RAW | 0 S WELCOME | 0.5 C Ada | 0.5 S PROMPT HELLO:Ada | 1.5 S PROMPT | 50 wait
PROMPT before (GOODBYE to exit/GOODBYE on shutdown/SORRY for a long name) [S2.4]
    RAW max_name_size=4 | 0 S WELCOME | 0 (C exit/shutdown/C 12345)
    | 0 S PROMPT (GOODBYE/GOODBYE/TOO_LONG:4) EOF | 0 is not-owing | 50 wait
PROMPT before (SORRY for idleness/GOODBYE after a lifetime, which counts from open) [S2.4, S11.1]
    RAW pace=60 (idle_timeout/max_lifetime)=50 | 0 S WELCOME | 50 S PROMPT (TOO_SLOW/GOODBYE) EOF
    | 90 wait
PROMPT is dropped at the end of the client's stream [S2.6, S7.2]
    AUTO | 0 S WELCOME | 0.5 C EOF | 0.5 S EOF | 50 wait

data_in_flight puts off a PROMPT that is (not yet due/due/overdue) [S2.7, S2.2]
    RAW | 0 S WELCOME | (0.5/1/1.5) late unacknowledged | (0.5/1/1.5) is owing
    | (0.5/1/1.5) next (1.5/2/2.5) | (1.5/2/2.5) S PROMPT | 9 wait
data_in_flight puts off by a quarter of the time for which the PROMPT has been owed [S2.7]
    RAW | 0 S WELCOME | 3.5 late unacknowledged | 3.5 next 4.5 | 4 late unacknowledged | 4 next 5
    | 8 late unacknowledged | 8 next 10 | 20 late unacknowledged | 20 next 25 | 21 C Ada
    | 21 S PROMPT HELLO:Ada | 22 unacknowledged | 22 next 23
data_in_flight counts that time from when HELLO was said, not from when it was due [S2.7]
    AUTO asked | 1 C Ada | 50 late | 50 S HELLO:Ada | 51 unacknowledged | 51 next 52
data_in_flight again: at the same time no change, later the PROMPT is put off [S2.7, T5]
    RAW | 0 S WELCOME | 0.5 unacknowledged | 0.5 unacknowledged | 0.5 next 1.5 | 1 unacknowledged
    | 1 next 2
data_in_flight does not hold a PROMPT back from (a line/a name/a shutdown) [S2.7, S2.3, S2.4]
    (AUTO/RAW/RAW) | 0 S WELCOME | 1 unacknowledged | 1.5 (C Ada\n/C Ada/shutdown)
    | 1.5 S PROMPT (HELLO:Ada PROMPT/HELLO:Ada/GOODBYE EOF)
data_in_flight fires quiet, and does not put off the PROMPT that is owed then [S2.7]
    AUTO pace=9 | 0 S WELCOME | 1 C Ada | 3 unacknowledged | 3 S PROMPT HELLO:Ada | 3 next 12
data_in_flight fires idle [S2.7]
    RAW pace=200 | 0 S WELCOME | 100 unacknowledged | 100 S PROMPT TOO_SLOW EOF
data_in_flight fires lifetime and linger [S2.7]
    RAW pace=200 max_lifetime=50 | 0 S WELCOME | 50 unacknowledged | 50 S PROMPT GOODBYE EOF
    | 60 unacknowledged | 60 is LIFETIME

CR and LF in two arrivals end one line [S3.1]
    AUTO/LINES asked | 1 C Ada\r | 2 C \n | 2 S HELLO:Ada PROMPT
CR stays where (the end of the stream/a shutdown/silence) ends the name [S3.1]
    AUTO asked | 1 C exit\r | (1 C EOF/1 shutdown/3 is OPEN)
    | (1/1/3) S HELLO:exit\r (EOF/PROMPT GOODBYE EOF/) | (1/1/3) names exit\r
framing is decided by the first LF [S3.2]
    AUTO asked | 1 is AUTO | 1 C Ada | 1 is AUTO | 1 C \n | 1 is LINES | 1 S HELLO:Ada PROMPT
framing LINES is for good: no silence makes a name of the tail [S3.2, S4.1]
    AUTO asked | 1 C Ada\nBo | 1 S HELLO:Ada PROMPT | 99 is LINES | 99 C b\n | 99 S HELLO:Bob PROMPT
framing LINES after a wrong guess, and the tail behind the LF waits [S3.2]
    AUTO asked | 1 C Ada | 3 S HELLO:Ada | 4 S PROMPT | 4 is RAW | 5 C \x20Lovelace\nBo
    | 5 S HELLO:\x20Lovelace PROMPT | 5 is LINES | 50 C b | 60 C \n | 60 S HELLO:Bob PROMPT
framing LINES, as configured, never changes [S3.3, S4.1]
    LINES asked | 1 C Ada | 99 is LINES | 99 names
framing RAW, as configured, never changes [S3.3]
    RAW asked | 2 C Ada\n | 2 S HELLO:Ada\n | 3 S PROMPT | 4 C Bob | 4 S HELLO:Bob | 5 S PROMPT
    | 9 is RAW

tail grows until an LF ends it [S4.1]
    LINES asked | 10 C A | 11 C d | 12 C a | 90 C \n | 90 S HELLO:Ada PROMPT
tail that looks like exit is a tail [S5.4, S4.1]
    LINES asked | 1 C Ada\nexit | 1 S HELLO:Ada PROMPT | 2 C s\n | 2 S HELLO:exits PROMPT
tail becomes a name, and framing RAW, after `quiet` [S4.2]
    AUTO asked | 10 C Ada | 12- is AUTO | 12- names | 12 S HELLO:Ada | 12 is RAW | 12 names Ada
tail `exit` gets GOODBYE after `quiet` [S5.2, S4.2]
    AUTO asked | 5 C exit | 7 S GOODBYE EOF | 9 wait
tail: every arrival starts `quiet` anew [S4.2]
    AUTO asked | 10 C A | 11.5 C d | 13 C a | 15 S HELLO:Ada | 15.5 wait
tail: a byte that is read after silence was noticed begins another name [S4.2, T3]
    AUTO asked | 10 C Ada | 12 S HELLO:Ada | 12 C Bob | 12 S PROMPT HELLO:Bob
arrivals are one event each, if any line is complete [S3.1, S7.1]
    LINES asked | 1 C Ada\nBob\nE | 1 S HELLO:Ada PROMPT HELLO:Bob PROMPT | 2 C ve\n
    | 2 S HELLO:Eve PROMPT | 3 C Joe | 4 C EOF | 4 S HELLO:Joe EOF | 4 names Ada Bob Eve Joe
    | 4 events NamesReceived NamesReceived NamesReceived EOFReceived ConversationEnded | 4 is EOF
arrivals are names in RAW, even two at the same time [S4.3]
    RAW asked | 2 C Bob | 2 S HELLO:Bob | 2 C Eve | 2 S PROMPT HELLO:Eve
arrivals are names in RAW that was guessed [S4.3]
    AUTO asked | 1 C Ada | 3 S HELLO:Ada | 4 S PROMPT | 5 C Bob | 5 S HELLO:Bob | 5 C Eve
    | 5 S PROMPT HELLO:Eve

long name, dripped in, is refused at its first byte beyond the limit [S6.2]
    AUTO/LINES max_name_size=3 asked | 1 C 1 | 1 C 2 | 1 C 3 | 1 is OPEN | 1 C 4
    | 1 S TOO_LONG:3 EOF
CR beyond the limit is not certain while an LF may follow [S6.2]
    AUTO/LINES max_name_size=5 asked | 1 C 12345\r | 1 is OPEN | 1 C \n | 1 S HELLO:12345 PROMPT
CR beyond the limit is certain before (another CR/another byte/CR LF) [S6.2]
    AUTO/LINES max_name_size=5 asked | 1 C 12345\r | 1 C (\r/6/\r\n) | 1 S TOO_LONG:5 EOF
CR beyond the limit is certain at the end of the stream, whose reason is REFUSED [S6.2, S7.1, S8.4]
    AUTO/LINES max_name_size=5 asked | 1 C 12345\r | 1 C EOF | 1 S TOO_LONG:5 EOF | 1 is REFUSED
CR beyond the limit is certain after `quiet` [S6.2, S4.2]
    AUTO max_name_size=5 asked | 3 C 12345\r | 5 S TOO_LONG:5 EOF
CR beyond the limit is certain in RAW [S6.2, S4.3]
    RAW max_name_size=5 asked | 3 C 12345\r | 3 S TOO_LONG:5 EOF
exit is too long where the limit is less than 4 [S6.3, S6.2]
    AUTO/LINES/RAW max_name_size=3 asked | 1 C exit | 1 S TOO_LONG:3 EOF
exit is too long behind a name where the limit is 1 [S6.3, S5.4]
    AUTO/LINES max_name_size=1 asked | 1 C a\nexit\r\n | 1 S HELLO:a PROMPT TOO_LONG:1 EOF
exit fits a limit of 4 [S6.3, S5.2]
    (AUTO/LINES/RAW) max_name_size=4 asked | 1 C exit(\r\n/\r\n/) | 1 S GOODBYE EOF | 1 is CLOSING

end of stream makes a name of the tail, at the limit, and no PROMPT is owed [S7.1, S4.1, S6.1]
    AUTO/LINES max_name_size=3 asked | 5 C Ada | 6 C EOF | 6 S HELLO:Ada EOF | 6 is EOF finished
    | 500 wait
end of stream makes `exit` of a tail [S7.1, S5.2]
    AUTO/LINES asked | 5 C exit | 6 C EOF | 6 S GOODBYE EOF | 6 is EXIT finished | 500 wait
end of stream after a line and a tail: only the last PROMPT is missing [S7.1]
    AUTO | 0 S WELCOME | 0.5 C Ada\nBob | 0.5 S PROMPT HELLO:Ada PROMPT | 0.75 C EOF
    | 0.75 S HELLO:Bob EOF | 50 wait
end of stream without a tail gets no word [S7.2]
    AUTO/LINES/RAW asked | 5 C EOF | 5 S EOF | 5 is EOF ENDED

closing stops pace and quiet [S8.1, S2.6]
    AUTO pace=3 quiet=3 | 0 S WELCOME | 1 C Ada | 2 shutdown
    | 2 S PROMPT HELLO:Ada PROMPT GOODBYE EOF | 10 wait
closing without linger is over in the same call [S8.3, T3]
    LINES linger=0 asked | 5 C exit\n | 5 S GOODBYE EOF | 5 is EXIT finished

idle client is refused exactly `idle_timeout` after open [S9.1, W3]
    AUTO/LINES/RAW asked | 100- is OPEN | 100 S TOO_SLOW EOF | 100 is CLOSING
idle time counts from the last greeted line [S9.1]
    LINES asked | 99 C Ada\n | 99 S HELLO:Ada PROMPT | 150 C Ada\n | 150 S HELLO:Ada PROMPT
    | 250 S TOO_SLOW EOF | 260 wait
idle time counts from the last greeted name in RAW [S9.1]
    RAW asked | 99 C Ada | 99 S HELLO:Ada | 100 S PROMPT | 150 C Ada | 150 S HELLO:Ada
    | 151 S PROMPT | 250 S TOO_SLOW EOF | 260 wait
idle time counts from the end of the silence that made a name [S9.1, S4.2]
    AUTO asked | 50 C Ada | 52 S HELLO:Ada | 53 S PROMPT | 152 S TOO_SLOW EOF | 160 wait
idle client's unfinished name is not answered [S9.1, S8.2]
    LINES asked | 99.5 C Ad | 100 S TOO_SLOW EOF | 101 C a\n | 102 C EOF | 102 names
idle_timeout infinite: the server waits forever [S9.1]
    LINES idle_timeout=inf asked | 1 next inf | 1e9 C Ada\n | 1e9 S HELLO:Ada PROMPT | 1e9 next inf
idle time starts anew for a name among blank lines [S9.2, S5.1]
    LINES asked | 99 C \n\nAda\n\n | 99 S PROMPT PROMPT HELLO:Ada PROMPT PROMPT | 199 S TOO_SLOW EOF
    | 200 wait

(shutdown/lifetime) answers an undecided tail, then says GOODBYE [S10.1, S10.2, S11.1]
    AUTO max_lifetime=(inf/6) asked | 5 C Ada | 6 (shutdown/wait)
    | 6 S HELLO:Ada PROMPT GOODBYE EOF | 6 next 16 | 6 C EOF | 6 is (SHUTDOWN/LIFETIME)
(shutdown/lifetime) answers an undecided `exit`, which is the end [S10.1, S10.2, S11.1, S11.2]
    AUTO max_lifetime=(inf/6) asked | 5 C exit | 6 (shutdown/wait) | 6 S GOODBYE EOF | 6 next 16
    | 6 C EOF | 6 is EXIT
(shutdown/lifetime) refuses an undecided tail that is too long [S10.1, S10.2, S6.2, S11.2]
    AUTO max_lifetime=(inf/6) max_name_size=5 asked | 5 C 12345\r | 6 (shutdown/wait)
    | 6 S TOO_LONG:5 EOF | 6 next 16 | 6 C EOF | 6 is REFUSED
(shutdown/lifetime) drops an unfinished line [S10.1, S11.1]
    LINES max_lifetime=(inf/6) asked | 5 C Ada | 6 (shutdown/wait) | 6 S GOODBYE EOF | 6 C EOF
    | 6 is (SHUTDOWN/LIFETIME) | 6 names
(shutdown/lifetime) drops an unfinished `exit` where framing became LINES [S10.1, S11.1]
    AUTO max_lifetime=(inf/6) asked | 5 C \nexit | 5 S PROMPT | 6 (shutdown/wait)
    | 6 S GOODBYE EOF | 6 C EOF | 6 is (SHUTDOWN/LIFETIME)
shutdown without a tail, in any framing [S10.2, S8.1]
    AUTO/LINES/RAW asked | 5 shutdown | 5 S GOODBYE EOF | 5 is CLOSING | 5 next 15 | 6 C EOF
    | 6 is SHUTDOWN
shutdown after a RAW guess [S10.2]
    AUTO asked | 1 C Ada | 3 S HELLO:Ada | 4 S PROMPT | 5 shutdown | 5 S GOODBYE EOF | 6 C EOF
    | 6 is SHUTDOWN

lifetime ends with GOODBYE exactly `max_lifetime` after open, however busy the client [S11.1, S11.2]
    LINES max_lifetime=50 asked | 5 C Ada\n | 5 S HELLO:Ada PROMPT | 49 C Ada\n
    | 49 S HELLO:Ada PROMPT | 50- is OPEN | 50 S GOODBYE EOF | 50 next 60 | 60- is CLOSING
    | 60 is LIFETIME
lifetime ends with GOODBYE in any framing [S11.1]
    AUTO/LINES/RAW max_lifetime=50 asked | 50- is OPEN | 50 S GOODBYE EOF | 60 is LIFETIME

full server says SORRY instead of WELCOME, and discards what comes [S12.1, S12.2, S8.2]
    AUTO/LINES/RAW full max_name_size=5 | 0 S FULL EOF | 0 is CLOSING | 1 C Ada | 1 C \n
    | 1 C exit\n | 1 C 123456 | 2 shutdown | 2 is CLOSING | 3 C EOF | 3 is REFUSED finished
    | 3 names
full server waits `linger` for the end of the client's stream, and for nothing else [S12.2, S8.3]
    AUTO full idle_timeout=5 max_lifetime=5 | 0 S FULL EOF | 0 next 10 | 10- is CLOSING
    | 10 is REFUSED finished
""")
def test_server_plays(play: str) -> None:
    perform(Server, play)


# Blocks of lines, each in one arrival, and the answer, where `max_name_size` is 8.
BLOCKS = r"""
one CR before LF is no part of a name, any other CR is [S3.1, W2]
Ada\n  Ada\r\n                > HELLO:Ada PROMPT
Ada\r\r\n                   > HELLO:Ada\r PROMPT
\rAda\n                     > HELLO:\rAda PROMPT
A\rda\n                     > HELLO:A\rda PROMPT
\r\r\n                      > HELLO:\r PROMPT
\x20Ada\t\n                 > HELLO:\x20Ada\t PROMPT
\x00\n                      > HELLO:\x00 PROMPT

a blank line, wherever it stands, asks again and is no name [S5.1, S2.1]
\n                          > PROMPT
\r\n\n  \n\r\n              > PROMPT PROMPT
\nAda\n                     > PROMPT HELLO:Ada PROMPT
\n12345678\n                > PROMPT HELLO:12345678 PROMPT
\n\nAda\n                   > PROMPT PROMPT HELLO:Ada PROMPT
Ada\n\nBob\n                > HELLO:Ada PROMPT PROMPT HELLO:Bob PROMPT
Ada\n\n                     > HELLO:Ada PROMPT PROMPT
\nAda\n\nBob\n\n            > PROMPT HELLO:Ada PROMPT PROMPT HELLO:Bob PROMPT PROMPT
\nexit\n                    > PROMPT GOODBYE
Ada\n\nexit\n               > HELLO:Ada PROMPT PROMPT GOODBYE

only a whole line `exit` is `exit` [S5.2, S5.3]
exit\n  exit\r\n             > GOODBYE
Exit\n                      > HELLO:Exit PROMPT
exit\x20\n                  > HELLO:exit\x20 PROMPT
\x20exit\n                  > HELLO:\x20exit PROMPT
exitexit\n                  > HELLO:exitexit PROMPT
exi\n                       > HELLO:exi PROMPT
quit\n                      > HELLO:quit PROMPT
\rexit\n                    > HELLO:\rexit PROMPT
exitexit\nxexit\nexit\nexit\n > HELLO:exitexit PROMPT HELLO:xexit PROMPT GOODBYE
exit\x20\nexi\nExit\nexit\n > HELLO:exit\x20 PROMPT HELLO:exi PROMPT HELLO:Exit PROMPT GOODBYE

what comes before an end is answered, what comes after it discarded [S5.4]
Ada\nBob\nexit\n       Ada\nBob\nexit\nEve\n  Ada\nBob\nexit\nEve  Ada\nBob\nexit\nexit\n \
Ada\nBob\nexit\n\n\n   Ada\nBob\nexit\n123456789  Ada\nBob\nexit\n123456789\n \
                           > HELLO:Ada PROMPT HELLO:Bob PROMPT GOODBYE
Ada\nBob\n123456789  Ada\nBob\n123456789\n  Ada\nBob\n123456789\nEve\n \
Ada\nBob\n123456789\n\nEve  Ada\nBob\n123456789\nexit\n \
                           > HELLO:Ada PROMPT HELLO:Bob PROMPT TOO_LONG:8
Ada\nexit\n123456789\nexit  > HELLO:Ada PROMPT GOODBYE

a name that is too long is found wherever it stands [S6.1, S6.2, S5.4]
123456789\nAda\n12345678\n  > TOO_LONG:8
12345678\n123456789\nAda\n  12345678\r\n123456789\r\n > HELLO:12345678 PROMPT TOO_LONG:8
1\n1234567\n123456789\r\n1\n > HELLO:1 PROMPT HELLO:1234567 PROMPT TOO_LONG:8
1\n12345678\n12\n123456789\n > HELLO:1 PROMPT HELLO:12345678 PROMPT HELLO:12 PROMPT TOO_LONG:8
12345678\r9  12345678\r\r\n > TOO_LONG:8
"""


@pytest.mark.parametrize("framing", [AUTO, LINES])
@pytest.mark.parametrize(
    ("data", "words"),
    [
        (block, words)
        for blocks, words in re.findall("^(\\S.*)>(.*)", BLOCKS.replace("\\\n", ""), re.MULTILINE)
        for block in blocks.split()
    ],
)
def test_block_of_lines(framing: core.Framing, data: str, words: str) -> None:
    server = Server.asked(framing, max_name_size=8)
    assert server.hears(spoken(data)) == spoken(words)
    names = [spoken(word.removeprefix("HELLO:")) for word in words.split() if "HELLO" in word]
    ending: list[object] = [core.ExitReceived()] if "GOODBYE" in words else []
    if "TOO_LONG" in words:
        ending = [Refused(Refusal.NAME_TOO_LONG, too_long(8)[:-1])]
    assert server.events == [core.NamesReceived(names)] * bool(names) + ending, (
        "one event an arrival"
    )
    assert server.connection.state is (
        core.ServerState.CLOSING if ending else core.ServerState.OPEN
    )
    if ending:
        assert server.hears(b"Eve\nexit\n") == b""


RAW_NAMES = r"Ada\n Ada\r\n \n \r\n\n Ada\nBob exit\n exit\r\n Ada\nexit"
NEARLY_EXIT = r"Exit exit\x20 \x20exit exitexit exi quit \rexit"


@pytest.mark.parametrize("text", [*RAW_NAMES.split(), *NEARLY_EXIT.split()])
def test_arrival_is_one_name_to_configured_raw(text: str) -> None:
    """Whatever is in it, LFs too [S3.3, S4.3, S5.2, S5.3]."""
    server, name = Server.asked(RAW), spoken(text)
    assert server.hears(name, at=2) == hello(name)
    assert server.events == [core.NamesReceived((name,))]
    server.waits(9)
    assert server.said[1:] == [(3, PROMPT)]


def test_every_byte_may_be_in_a_name() -> None:
    """An LF only in RAW [W2, S3.3]."""
    name = bytes(set(range(256)) - {0x0A})
    assert Server.asked(LINES).hears(name + b"\n") == hello(name) + PROMPT
    assert Server.asked(RAW).hears(name + b"\n") == hello(name + b"\n")


@pytest.mark.parametrize("framing", [AUTO, LINES])
@pytest.mark.parametrize("limit", [1, 5, 1024])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_limit_of_a_line(framing: core.Framing, limit: int, end: bytes) -> None:
    """Its terminator is not counted [S6.1]."""
    server = Server.asked(framing, max_name_size=limit)
    assert server.hears(b"x" * limit + end, at=5) == hello(b"x" * limit) + PROMPT
    assert server.hears(b"x" * (limit + 1) + end, at=9) == too_long(limit)
    assert server.said[-1] == (9, EOF)


@pytest.mark.parametrize("limit", [1, 5, 1024])
def test_limit_of_an_arrival(limit: int) -> None:
    """In RAW an LF is part of the name [S6.1, S3.3]."""
    server = Server.asked(RAW, max_name_size=limit)
    assert server.hears(b"x" * limit) == hello(b"x" * limit)
    server.waits(9)
    assert server.hears(b"x" * limit + b"\n") == too_long(limit)
    message = b"Sorry, names are limited to %d bytes." % limit
    assert server.events[1:] == [Refused(Refusal.NAME_TOO_LONG, message)]


@pytest.mark.parametrize("drip", [b"x", b"\n", b"\r\n", b"\r"])
def test_bytes_and_blank_lines_are_no_progress(drip: bytes) -> None:
    """Only a greeted name is [S9.2]."""
    server = Server.asked(LINES)
    for at in range(2, 100):
        server.hears(drip, at=at)
    server.waits(101)
    assert server.said[-2:] == [(100, TOO_SLOW), (100, EOF)]


# Closing

# What makes a server close at 5 (if it is full, on open): the reason, and what is reported at once.
CLOSERS: dict[str, tuple[EndReason, list[object]]] = {
    r"LINES asked | 5 C exit\n | 5 S GOODBYE EOF": (EndReason.EXIT, [core.ExitReceived()]),
    r"LINES max_name_size=5 asked | 5 C 123456\n | 5 S TOO_LONG:5 EOF": (
        EndReason.REFUSED,
        [Refused(Refusal.NAME_TOO_LONG, too_long(5)[:-1])],
    ),
    "LINES asked | 5 shutdown | 5 S GOODBYE EOF": (EndReason.SHUTDOWN, []),
    "LINES idle_timeout=5 asked | 5 S TOO_SLOW EOF": (
        EndReason.REFUSED,
        [Refused(Refusal.IDLE, TOO_SLOW[:-1])],
    ),
    "LINES max_lifetime=5 asked | 5 S GOODBYE EOF": (EndReason.LIFETIME, []),
    "LINES full linger=15 | 0 S FULL EOF | 5 wait": (
        EndReason.REFUSED,
        [Refused(Refusal.FULL, FULL[:-1])],
    ),
}


@pytest.mark.parametrize("cause", CLOSERS)
@pytest.mark.parametrize("ending", ["EOF", "lost", "linger"])
def test_closing(cause: str, ending: str) -> None:
    """What comes is discarded, until one of three ends [S8.1, S8.2, S8.3, S8.4, W3]."""
    server = perform(Server, cause)
    reason, events = CLOSERS[cause]
    said = [*server.said]
    assert server.connection.state is core.ServerState.CLOSING
    assert server.connection.deadline == 15, "only the linger timer runs"
    for data in (b"Ada\n", b"exit\n", b"123456", b"\n"):
        server.hears(data, at=14)
    server.shuts_down()
    server.waits(math.nextafter(15, 0))
    assert (server.connection.state, server.events) == (core.ServerState.CLOSING, events)
    match ending:
        case "EOF":
            server.hears_eof()
            events = [*events, core.EOFReceived()]
        case "lost":
            server.loses_connection()
        case "linger":
            server.waits(15)
    server.looks(1000)
    assert (server.said, server.events) == (said, [*events, core.ConversationEnded(reason)])
    assert server.connection.finished


def test_peer_that_never_acknowledges() -> None:
    """Until it is refused for being idle, such a peer costs some forty calls [S2.7, S9.1]."""
    server = core.ServerConnection(now=0)
    calls = [0.0]
    while server.state is core.ServerState.OPEN:
        server.data_in_flight(server.deadline)
        calls.append(server.deadline)
    assert 35 < len(calls) < 45
    assert all(earlier < later for earlier, later in pairwise(calls))
    assert server.data_to_send() == WELCOME + PROMPT + TOO_SLOW
