"""What the adapters share keeps the rules that are no framework's business."""

import math
import socket
import sys
from collections.abc import Iterator

import pytest

from greeter_core import Framing, ServerConfig
from tests.support.connections import LINES, dialogue
from tests.support.words import ADA, GOODBYE, PROMPT, WELCOME

from .common import Conversation, config

DAY = 86400.0
NAMES = b"Ada\n" * 4096
ANSWERS = (ADA + PROMPT) * 4096


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def all_of(conversation: Conversation) -> bytes:
    return b"".join(iter(conversation.data_to_send, b""))


def test_slices(ends: tuple[socket.socket, socket.socket]) -> None:
    """The end comes after the last of them."""
    conversation = Conversation(LINES, ends[0], 0.0)
    conversation.give(NAMES, 1.0)
    conversation.give(b"", 2.0)
    slices = []
    while data := conversation.data_to_send():
        slices.append(data)
        last = len(b"".join(slices)) == len(WELCOME + PROMPT + ANSWERS)
        assert (conversation.finished, conversation.eof_to_send()) == (False, last)
    assert b"".join(slices) == WELCOME + PROMPT + ANSWERS
    assert [len(each) for each in slices[:-1]] == [65536] * (len(slices) - 1)
    assert conversation.finished


def test_timeout(ends: tuple[socket.socket, socket.socket]) -> None:
    """There is always one that frameworks take."""
    for idle_timeout, expected in ((math.inf, DAY), (1e12, DAY), (5.0, 4.0), (0.5, 0.0)):
        timed = ServerConfig(framing=Framing.LINES, idle_timeout=idle_timeout)
        assert Conversation(timed, ends[0], 0.0).timeout(1.0) == expected


def test_shutdown(ends: tuple[socket.socket, socket.socket]) -> None:
    """What has arrived is read first; then nothing is waited for but the client's end."""
    conversation = Conversation(LINES, ends[0], 0.0)
    conversation.shut_down()
    assert conversation.timeout(1.0) == 0
    conversation.give(b"Ada\n", 1.0)
    assert conversation.timeout(1.0) == 0
    conversation.give(None, 1.0)
    assert all_of(conversation) == dialogue(b"Ada")
    assert conversation.timeout(1.0) == 2  # linger
    conversation.shut_down()
    assert conversation.timeout(1.0) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="FIONREAD is not asked there")
def test_shutdown_while_a_client_goes_on(ends: tuple[socket.socket, socket.socket]) -> None:
    """It is heard until all that had arrived is read for sure."""
    ours, theirs = ends
    theirs.sendall(NAMES)
    conversation = Conversation(LINES, ours, 0.0)
    conversation.shut_down()
    given = 0
    while not (said := all_of(conversation)).endswith(GOODBYE):
        assert conversation.timeout(1.0) == 0, said
        conversation.give(NAMES, 1.0)
        given += len(NAMES)
        assert given <= 3 * 2**20
    assert given > 2**20 + len(NAMES)


def test_closed_meanwhile(ends: tuple[socket.socket, socket.socket]) -> None:
    """A framework may close a socket a little before it says so."""
    conversation = Conversation(LINES, ends[0], 0.0)
    ends[0].close()
    conversation.shut_down()
    conversation.give(None, 1.0)
    assert all_of(conversation) == dialogue()


def test_lost(ends: tuple[socket.socket, socket.socket]) -> None:
    """Nothing can be sent any more."""
    conversation = Conversation(LINES, ends[0], 0.0)
    conversation.give(NAMES, 1.0)
    conversation.data_to_send()
    conversation.lose()
    assert (conversation.data_to_send(), conversation.eof_to_send()) == (b"", False)
    assert conversation.finished


def test_config() -> None:
    """What is missing has its default, and null is never."""
    assert config('{"framing": "raw", "idle_timeout": null}') == ServerConfig(
        framing=Framing.RAW, idle_timeout=math.inf
    )
