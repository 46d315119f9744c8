"""Shutting down where segments take their time."""

import contextlib
import signal
import time
from collections.abc import Iterator

import pytest

from tests.support.processes import COMMAND, PATIENCE, Peer, Server, serving_at
from tests.support.words import GOODBYE, PROMPT, WELCOME

from .path import Impairment, Path, Unavailable, path

CLIENTS = 50


def wait_until_sent(between: Path, packets: int) -> None:
    """Wait until so many packets were sent, in both directions together."""
    give_up_at = time.monotonic() + PATIENCE
    while between.counted()["sent"] < packets:
        assert time.monotonic() < give_up_at
        time.sleep(0.005)


@contextlib.contextmanager
def serving_over(impairment: Impairment, *options: str) -> Iterator[tuple[Path, Server]]:
    """Run a server on the other host of a path."""
    with contextlib.ExitStack() as stack:
        try:
            between = stack.enter_context(path(impairment, seed=1))
        except Unavailable as exc:
            pytest.skip(str(exc))
        where, numbers = ("--listen", f"{between.host}:0"), between.namespaces
        command = between.inside(*COMMAND)
        yield (
            between,
            stack.enter_context(serving_at(*where, *options, command=command, pass_fds=numbers)),
        )


def test_clients_that_are_connecting_are_answered() -> None:
    """Their SYN was answered at SIGTERM, and the last segment of their handshake is on its way."""
    with serving_over(Impairment(delay=0.1)) as (between, server):
        peers = [Peer(between.connect(server.port)) for _ in range(CLIENTS)]
        wait_until_sent(between, 2 * CLIENTS)  # SYN there, and SYN-ACK back
        server.process.send_signal(signal.SIGTERM)
        for peer in peers:
            with peer:
                assert peer.hear(WELCOME + PROMPT + GOODBYE).hear_rest() == b""
        assert f"accepted_total {CLIENTS}," in server.wait()
