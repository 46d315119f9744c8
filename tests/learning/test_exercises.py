"""The solutions of the exercises in greeter_trio/LEARNING.md."""

import json
from collections.abc import Iterable

import pytest
import trio

from greeter_core import Observed, ServerConnection, read_transcript, replay
from greeter_trio import open_greeter, serve_greeter
from tests.support.documents import ROOT

DEMO = ROOT / "tests" / "golden" / "demo.jsonl"


# 1. Numbers


def expected_numbers(segments: Iterable[Observed]) -> list[tuple[int, int | None]]:
    """Return `seq` and `ack` of segments, from who sends them, their flags and their lengths."""
    following = {"client": 0, "server": 0}  # the next number of each direction
    numbers = []
    for segment in segments:
        fields = segment.fields
        source = fields["from"]
        other = "client" if source == "server" else "server"
        ack = following[other] if "ACK" in fields["flags"] else None
        numbers.append((following[source], ack))
        # SYN and FIN take a number each, and so does every byte.
        following[source] += (
            fields["length"] + ("SYN" in fields["flags"]) + ("FIN" in fields["flags"])
        )
    return numbers


def test_numbers_follow_from_flags_and_lengths() -> None:
    with DEMO.open("rb") as file:
        items = [item for _, item in read_transcript(file) if isinstance(item, Observed)]
    segments = [item for item in items if item.what == "segment"]
    first = {segment.fields["from"]: segment.fields["seq"] for segment in reversed(segments)}
    seen = []
    for segment in segments:
        source = segment.fields["from"]
        other = "client" if source == "server" else "server"
        ack = segment.fields.get("ack")
        relative = None if ack is None else (ack - first[other]) % 2**32
        seen.append(((segment.fields["seq"] - first[source]) % 2**32, relative))
    assert len(seen) > 20
    assert expected_numbers(segments) == seen


# 2. Torn names


def test_name_of_a_line_is_answered_after_its_line_feed() -> None:
    server = ServerConnection(now=0.0)
    server.handle_timeout(now=0.02)
    assert server.data_to_send().decode() == "Welcome!\nWhat's your name?"
    answers = []
    for byte in "小明\n".encode():
        server.receive_data(bytes([byte]), now=1.0)
        answers.append(server.data_to_send().decode())
    assert answers == [*[""] * 6, "Hello 小明!\nWhat's your name?"]


def test_exit_in_the_same_arrival_is_answered_after_the_name() -> None:
    server = ServerConnection(now=0.0)
    server.receive_data("小明\nexit\n".encode(), now=1.0)
    assert server.data_to_send().decode().endswith("Hello 小明!\nWhat's your name?Goodbye!\n")
    assert server.eof_to_send()


# 3. A message a recv


def naive_answer(received: bytes) -> bytes:
    return b"Hello " + received + b"!\n"


@pytest.mark.parametrize(
    ("arrivals", "naive"),
    [
        ([b"Ada\nGrace\n"], b"Hello Ada\nGrace\n!\n"),
        ([b"A", b"da\n"], b"Hello A!\nHello da\n!\n"),
    ],
)
def test_naive_server_greets_arrivals_and_the_core_greets_names(
    arrivals: list[bytes], naive: bytes
) -> None:
    assert b"".join(map(naive_answer, arrivals)) == naive
    server = ServerConnection(now=0.0)
    for arrival in arrivals:
        server.receive_data(arrival, now=1.0)
    names = [name for event in server.events() for name in getattr(event, "names", ())]
    assert b"\n".join(names) == b"".join(arrivals).rstrip(b"\n")


# 4. Who cancels whom?


async def test_cancelled_clients_leave_the_server_alone() -> None:
    greetings: list[str] = []
    async with trio.open_nursery() as serving:
        listeners = await serving.start(serve_greeter, "127.0.0.1", 0)
        port = listeners[0].socket.getsockname()[1]

        async def greet(number: int, clients: trio.CancelScope) -> None:
            async with open_greeter("127.0.0.1", port) as greeter:
                greetings.append(await greeter.greet(f"Client {number}"))
                clients.cancel()

        async with trio.open_nursery() as clients:
            for number in range(50):
                clients.start_soon(greet, number, clients.cancel_scope)
        assert greetings
        async with open_greeter("127.0.0.1", port) as greeter:
            assert await greeter.greet("Ada") == "Hello Ada!"
        serving.cancel_scope.cancel()


# 5. Time travel


def test_first_difference_of_another_pace_is_the_first_deadline() -> None:
    lines = DEMO.read_bytes().splitlines(keepends=True)
    opening = json.loads(lines[1])
    opening["config"]["pace"] = 0.03
    lines[1] = json.dumps(opening).encode() + b"\n"
    difference = replay(read_transcript(lines))
    assert difference
    # Pace begins to run when the connection is opened: a PROMPT is owed from then on.
    assert (difference.line, difference.fields) == (2, ["deadline"])
    assert (difference.expected.deadline, difference.got.deadline) == (0.02, 0.03)
