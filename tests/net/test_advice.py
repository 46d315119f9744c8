"""Errors of the operating system in words, with advice."""

import errno
import os
import socket

import pytest

from greeter_trio._net.advice import (
    CONNECTING,
    CONNECTING_UNIX,
    LISTENING,
    UNKNOWN_HOST,
    EndpointError,
    explain,
)

REFUSED = ConnectionRefusedError(errno.ECONNREFUSED, "as the exception has it")
ADVISED = "Connection refused (is the server running, and on this port?)"
NO_NAME = socket.gaierror(socket.EAI_NONAME, "no such name")
NO_BUFFERS, OTHER = os.strerror(errno.ENOBUFS), OSError(errno.ENOBUFS, "")


@pytest.mark.parametrize(
    ("exc", "text"),
    [
        (PermissionError(errno.EACCES, ""), "Permission denied"),
        (REFUSED, ADVISED),
        (OTHER, NO_BUFFERS),
        (OSError("no number"), "no number"),
        (NO_NAME, "no such name (check the name of the host)"),
        (socket.gaierror(socket.EAI_AGAIN, "not now"), "not now (check the name of the host)"),
        (UnicodeError("label too long"), "label too long (check the name of the host)"),
        (ExceptionGroup("", [REFUSED, OTHER, REFUSED]), f"{ADVISED}; {NO_BUFFERS}"),
        (ExceptionGroup("", [ExceptionGroup("", [REFUSED]), REFUSED]), ADVISED),
    ],
)
def test_errors_are_explained(exc: Exception, text: str) -> None:
    """Of a group, each different error is named once."""
    assert explain(exc, CONNECTING) == text
    assert "(" not in explain(exc, {})


def test_advice_names_no_option() -> None:
    """The library has none; the command line adds its own."""
    for advice in (LISTENING, CONNECTING, CONNECTING_UNIX):
        assert not any("--" in text for text in advice.values())
    assert UNKNOWN_HOST in LISTENING
    assert UNKNOWN_HOST not in CONNECTING_UNIX


@pytest.mark.parametrize(
    ("why", "number"),
    [
        (None, None),
        (REFUSED, errno.ECONNREFUSED),
        (ExceptionGroup("", [REFUSED, REFUSED]), errno.ECONNREFUSED),
        (ExceptionGroup("", [REFUSED, OTHER]), None),
        (UnicodeError("label too long"), None),
    ],
)
def test_errors_of_endpoints_tell_the_number(why: Exception | None, number: int | None) -> None:
    """That of all addresses, if they failed alike."""
    assert EndpointError("cannot", why).errno == number


def test_errors_of_endpoints_take_other_advice() -> None:
    error = EndpointError("cannot", ExceptionGroup("", [REFUSED, OTHER]), CONNECTING)
    assert str(error) == error.with_advice({}) == f"cannot: {ADVISED}; {NO_BUFFERS}"
    other = error.with_advice({errno.ECONNREFUSED: "wait"})
    assert other == f"cannot: {os.strerror(errno.ECONNREFUSED)} (wait); {NO_BUFFERS}"
    assert EndpointError("no reason").with_advice({0: "none"}) == "no reason"
