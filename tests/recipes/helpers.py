"""What the tests of the recipes share: their files as they stand here, with other ports and paths, and clients."""

import contextlib
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.cli.helpers import GOODBYE, PATIENCE, PROMPT, Output, Peer, hello, met, started

FOLDER = Path(__file__).parent

_VISITORS = 4  # at the same time


def adapted(name: str, changes: dict[str, str]) -> str:
    """Return a configuration file, changed; what is to be changed must be there, and only once."""
    text = (FOLDER / name).read_text("utf-8")
    for old, new in changes.items():
        assert text.count(old) == 1, f"{old!r} should be once in {name}"
        text = text.replace(old, new)
    return text


@contextlib.contextmanager
def balancing(*command: str) -> Iterator[tuple[subprocess.Popen[bytes], Output]]:
    """Run a load balancer in the foreground, and yield it and what it writes to standard error; end it by SIGTERM."""
    with started(*command) as process:
        assert process.stderr
        log = Output(process.stderr.fileno())
        try:
            yield process, log
        finally:
            process.terminate()
            process.wait(PATIENCE)
            log.join()


def where(peer: Peer) -> str:
    """Return a client's own address, as logs have it."""
    return "{}:{}".format(*peer.socket.getsockname())


def visit(port: int) -> str:
    """Come, be greeted, and say exit; return from where."""
    with met(port) as peer:
        address = where(peer)
        peer.say(b"Ada\nexit\n")
        assert peer.hear_rest() == hello("Ada") + PROMPT + GOODBYE
        return address


@contextlib.contextmanager
def visitors(port: int) -> Iterator[set[str]]:
    """Have clients come and go all the time; yield from where. At the end, none of them may have seen an error."""
    addresses: set[str] = set()
    over = threading.Event()

    def keep_visiting() -> None:
        while not over.is_set():
            addresses.add(visit(port))

    with ThreadPoolExecutor(_VISITORS) as threads:
        all_of_them = [threads.submit(keep_visiting) for _ in range(_VISITORS)]
        try:
            yield addresses
        finally:
            over.set()
    for each in all_of_them:
        each.result()


def clients(log: Output) -> set[str]:
    """Return the addresses of all clients that were greeted, from the log of a server behind a load balancer."""
    closed = rb"Connection from (\S+) through \S+ is closed: the client said exit; 1 name in "
    return {match[1].decode() for match in re.finditer(closed, log.all())}


def wait_until(is_so: Callable[[], bool]) -> None:
    """Ask until it is so. Asking takes its time by itself: there is another process to be asked."""
    end = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < end, "it never came to be so"
