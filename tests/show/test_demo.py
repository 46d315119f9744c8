"""The demonstration: three scenes over real loopback TCP."""

import socket
from typing import Any

import pytest
import trio

from greeter_core import Observed, Recording, Step, TranscriptItem, replay
from greeter_trio._show import demo as _demo
from greeter_trio._show.beside import Beside
from greeter_trio._show.demo import Demo
from greeter_trio._show.segments import Capture


async def played(capture: Capture | None, clients: int = 3) -> tuple[list[Any], list[str], Demo]:
    items: list[TranscriptItem] = []
    said: list[str] = []

    def say(line: str, *, shows_tcp: bool = True) -> None:
        said.append(f"{len(said)} {line} {shows_tcp}")

    demo = Demo(items.append, say, capture, clients)
    with trio.fail_after(30):
        await demo.run()
    assert demo.now() > 1
    return items, said, demo


def steps_of(items: list[Any], number: int) -> list[Step]:
    return [item for item in items if isinstance(item, Step) and item.id == number]


def observed_of(items: list[Any], number: int) -> list[Observed]:
    return [item for item in items if isinstance(item, Observed) and item.id == number]


async def test_scenes_with_assumed_segments() -> None:
    items, said, demo = await played(None)
    assert [line[0] for line in said] == ["0", "1", "2", "3"]
    assert [line.endswith("True") for line in said] == [True, False, True, True]
    assert demo.segments == []
    assert replay(enumerate(items, 2)) is None
    one = steps_of(items, 1)
    names = [name for step in one for event in step.events for name in getattr(event, "names", ())]
    assert names == [b"Alice", b"Bob"]
    assert [step.data for step in one if step.data] == [b"Alice\n", b"Bob\n", b"\n", b"exit\n"]
    assert one[-1].state.is_ended
    kinds = [steps_of(items, number)[-1].framing for number in (2, 3, 4)]
    assert sorted(kind.value for kind in kinds) == ["lines", "lines", "raw"]
    hasty = observed_of(items, 5)
    received = [each.fields["bytes"] for each in hasty if each.what == "receive"]
    assert received == [26, 0]  # two words in one; the server hears the end
    assert any(each.what == "note" for each in hasty)
    right = observed_of(items, 6)
    assert [each.fields["bytes"] for each in right if each.what == "receive"][:2] == [9, 17]
    segments = [each for each in observed_of(items, 1) if each.what == "segment"]
    assert len(segments) > 20
    assert all(each.fields["assumed"] for each in segments)


async def test_scenes_with_real_segments() -> None:
    try:
        capture = Capture()
    except OSError as exc:
        pytest.skip(f"segments cannot be captured here: {exc}")
    with capture, socket.create_server(("127.0.0.1", 0)) as other:
        socket.create_connection(other.getsockname()).close()  # it is not the demonstration's
        items, _, demo = await played(capture, clients=1)
    assert replay(enumerate(items, 2)) is None
    seen = observed_of(items, 1)
    flags = [each.fields["flags"] for each in seen if each.what == "segment"]
    assert flags[:3] == [["SYN"], ["SYN", "ACK"], ["ACK"]]
    assert sum("FIN" in each for each in flags) == 2
    assert not any("assumed" in each.fields for each in seen)
    states = [(each.fields["end"], each.fields["state"]) for each in seen if each.what == "tcp"]
    assert ("client", "ESTABLISHED") in states
    assert ("client", "CLOSE_WAIT") in states
    assert states[-1] == ("server", "TIME_WAIT")
    assert sum(segment.flags == ("SYN",) for segment in demo.segments) == 4


async def test_port_6000_may_be_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    async with listener:
        monkeypatch.setattr(_demo, "_PORT", listener.socket.getsockname()[1])
        (free,) = await _demo._listen()
        assert free.socket.getsockname()[1] != _demo._PORT
        free.close()


def test_what_is_seen_before_the_opening_waits_for_it() -> None:
    items: list[TranscriptItem] = []
    beside = Beside(items.append, began=100.0, explains=False)
    recording = Recording(beside.take, now=100.0)
    beside.observe(4711, "connect", 100.5, end="client")
    assert items == []
    recording.server(now=101.0, peer="127.0.0.1:4711")
    assert items[1] == Observed(id=1, at=-0.5, what="connect", fields={"end": "client"})
    beside.observe(4711, "close", 103.0, end="client")
    assert items[2] == Observed(id=1, at=2.0, what="close", fields={"end": "client"})
