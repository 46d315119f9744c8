"""Clients that speak something else than this protocol, and what the log says of them."""

import pytest
import trio
from trio.testing import MockClock

from greeter_trio._net.proxy import encode_v1, encode_v2
from greeter_trio._service.strangers import Strangers
from tests.support.certificates import Authority
from tests.support.logs import Log
from tests.support.plays import Step, ends, hears_rest, play, says
from tests.support.servers import lines_sessions

from .test_session import converse, hears_out, secure_sessions, warnings

ENDS = (("192.0.2.1", 4711), ("192.0.2.2", 6000))
HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(128, 256)) * 4


@pytest.mark.parametrize(
    ("beginning", "kind"),
    [
        (HELLO, "tls"),
        (b"GET / HTTP/1.1\r\n", "http"),
        (b"POST /greet HTTP/", "http"),
        (b"CONNECT www.example.org:443 HTTP/1.1\r\n", "http"),
        (b"PRI * HTTP/2.0\r\n", "http"),
        (encode_v1(*ENDS), "proxy"),
        (b"PROXY UNKNOWN\r\n", "proxy"),
        (encode_v2(*ENDS), "proxy"),
        (b"Ada\n", None),
        (b"GET", None),
        (b"Get / together\n", None),
        (b"PROXY war\n", None),
        (b"\x16", None),
        (b"", None),
    ],
)
async def test_beginnings(beginning: bytes, kind: str | None, log: Log) -> None:
    await trio.lowlevel.checkpoint()
    Strangers().note(beginning[:64], "127.0.0.1:42101")
    assert warnings(log) == ([kind] if kind else [])
    if kind:
        spoken = f"127.0.0.1:42101 speaks {kind.upper()} to a port that does not"
        assert log.lines == [f"{spoken} (1 client so far)"]


SAYS_LITTLE = play(says(b"GET / HTTP/1.1\r\n\r\n"), ends(), hears_rest())
SAYS_MUCH = play(says(HELLO.replace(b"\n", b"") * 3), hears_out)


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (SAYS_LITTLE, "http"),
        (SAYS_MUCH, "tls"),  # which is too long for a name
        (play(says(encode_v1(*ENDS) + b"Ada\n"), ends(), hears_rest()), "proxy"),
        (play(says(b"Ada\nGET / HTTP/1.1\n"), ends(), hears_rest()), None),
    ],
    ids=["HTTP", "TLS", "PROXY", "a name later"],
)
async def test_a_client_of_a_plain_port(script: Step, kind: str | None, log: Log) -> None:
    sessions = lines_sessions()
    for _ in range(3):
        await converse(sessions, script)
    assert warnings(log) == ([kind] if kind else [])


@pytest.mark.parametrize(
    ("secure", "said", "kind"),
    [
        (True, b"GET / HTTP/1.1\r\n\r\n", "http"),
        (True, encode_v1(*ENDS), "proxy"),
        (True, b"Ada\n", None),
        (False, HELLO, "tls"),
        (False, b"GET / HTTP/1.1\r\n\r\n", "http"),
        (False, b"PROXY is wrong\r\n", None),
    ],
)
async def test_a_client_of_another_port(
    autojump_clock: MockClock,
    authority: Authority,
    log: Log,
    said: bytes,
    kind: str | None,
    *,
    secure: bool,
) -> None:
    """With TLS, or behind a proxy."""
    sessions = secure_sessions(authority) if secure else lines_sessions(proxy_protocol=True)
    await converse(sessions, play(says(said), hears_out))
    assert warnings(log) == ([kind] if kind else [])


async def test_the_number_of_strangers_is_told_to_the_end(log: Log) -> None:
    sessions = lines_sessions()
    for _ in range(5):
        await converse(sessions, SAYS_LITTLE)
    sessions.tell_warnings()
    counts = [vars(record)["facts"].get("count") for record in log.records]
    assert [count for count in counts if count] == [1, 5]
