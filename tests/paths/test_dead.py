"""Paths that die under conversations which may otherwise last for ever."""

import contextlib
import sys

import pytest

from tests.support.processes import Peer, serving_at
from tests.support.words import PROMPT, WELCOME

from .path import Impairment, Unavailable, path

HASTY = """\
from greeter_trio._cli import main
from greeter_trio._net import socket_transport
socket_transport.KEEPALIVE |= {"TCP_KEEPIDLE": 1, "TCP_KEEPINTVL": 1, "TCP_KEEPCNT": 2}
socket_transport.USER_TIMEOUT, socket_transport._MARGIN = 2, 0
raise SystemExit(main())
"""
"""The command, with a server that gives up on such a path within seconds."""


@pytest.mark.parametrize(
    ("send_timeout", "said"), [("1", b"Ada\n"), ("inf", b"")], ids=["user timeout", "keepalive"]
)
def test_clients_behind_a_dead_path_are_lost(send_timeout: str, said: bytes) -> None:
    """Silent ones; and those to whom an answer is on its way, which keepalive does not look at."""
    with contextlib.ExitStack() as stack:
        try:
            between = stack.enter_context(path(Impairment(delay=0.01), seed=1))
        except Unavailable as exc:
            pytest.skip(str(exc))
        options = ("--idle-timeout", "inf", "--send-timeout", send_timeout)
        where, command = between.listener.fileno(), (sys.executable, "-c", HASTY)
        server = stack.enter_context(
            serving_at("--listen", f"fd:{where}", *options, command=command, pass_fds=[where])
        )
        silent, speaking = (stack.enter_context(Peer(between.connect())) for _ in range(2))
        for peer in (silent, speaking):
            peer.hear(WELCOME + PROMPT)
        between.cut()
        speaking.say(said)
        for _ in range(2):
            server.log.expect(b"the connection was lost (Connection timed out); ")
