"""Recording and tracing beside a running server."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from greeter_core import Observed, Recording, Step, TranscriptItem, read_transcript, replay
from greeter_trio import Greeter, serve_greeter
from greeter_trio._net.observed_transport import ObservedTransport
from greeter_trio._net.stream_transport import transport_over
from greeter_trio._show.files import OutputError
from greeter_trio._show.live import LiveTrace, RecordFile, recorded


def items_in(path: Path) -> list[TranscriptItem]:
    with path.open("rb") as file:
        return [item for _, item in read_transcript(file)]


async def test_server_is_recorded_as_it_happens(tmp_path: Path) -> None:
    path = tmp_path / "record"
    path.write_bytes(b"what was there before")
    failures: list[str] = []
    output = RecordFile(str(path), failures.append)
    assert path.read_bytes() == b"what was there before"
    with recorded([output]) as recording:
        async with trio.open_nursery() as nursery:
            server = await nursery.start(partial(serve_greeter, port=0, recording=recording))
            address = server[0].socket.getsockname()
            async with await trio.open_tcp_stream(*address) as stream, Greeter(stream) as greeter:
                assert await greeter.greet("小明") == "Hello 小明!"
                await trio.sleep(0.01)  # the loop waits, so it has been written
                assert "小明" in path.read_text("utf-8")
            await trio.testing.wait_all_tasks_blocked(0.01)
            nursery.cancel_scope.cancel()
    output.close()
    with path.open("rb") as file:
        assert replay(read_transcript(file)) is None
    observed = [item.what for item in items_in(path) if isinstance(item, Observed)]
    assert observed[:1] == ["accept"]
    assert observed[-1] == "close"
    assert {"send", "receive", "half_close"} <= set(observed)
    assert all(
        item.fields["end"] == "server" for item in items_in(path) if isinstance(item, Observed)
    )
    assert failures == []


async def test_nothing_is_recorded_if_nothing_takes_it() -> None:
    with recorded([]) as recording:
        assert recording is None


async def test_client_that_is_cut_off_is_lost() -> None:
    items: list[TranscriptItem] = []
    recording = Recording(items.append, now=trio.current_time())
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve_greeter, port=0, recording=recording))
        stream = await trio.open_tcp_stream(*server[0].socket.getsockname())
        assert await stream.receive_some() == b"Welcome!\n"
        nursery.cancel_scope.cancel()
    await stream.aclose()
    steps = [item.input.value for item in items if isinstance(item, Step)]
    assert steps[-1] == "lost"


async def test_trace_is_drawn_when_the_loop_waits(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    with path.open("wb") as file:
        trace = LiveTrace(file.fileno(), "trace", print, colour=False)
        with recorded([trace]) as recording:
            assert recording
            server = recording.server(now=trio.current_time(), peer="192.0.2.1:1")
            await trio.sleep(0.01)
            assert "Welcome!" in path.read_text("utf-8")
            trace.until = lambda: 0.0
            server.shutdown(trio.current_time())
            await trio.sleep(0.01)
            assert "Goodbye!" not in path.read_text("utf-8")
            trace.say("The end", shows_tcp=False)
            server.observe("close", trio.current_time())
        trace.close()
    lines = path.read_text("utf-8").splitlines()
    assert "Goodbye!" in lines[-5]
    assert lines[-1] == "The end"


def test_file_that_cannot_be_recorded_into(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=f"^cannot write to {tmp_path}: "):
        RecordFile(str(tmp_path), print)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
async def test_full_disk_at_the_beginning() -> None:
    output = RecordFile("/dev/full", print)
    with pytest.raises(OutputError, match=r"^cannot write to /dev/full: "), recorded([output]):
        pass
    output.close()


def test_trace_without_standard_output() -> None:
    with pytest.raises(OutputError, match=r"^cannot write to standard output: "):
        LiveTrace(12345, "standard output", print, colour=False)


async def test_observed_transport_over_any_stream(autojump_clock: Any) -> None:
    """The clock of the observations can be the conversation's."""
    ours, theirs = trio.testing.memory_stream_pair()
    seen: list[tuple[str, float, dict[str, object]]] = []

    def observe(what: str, now: float, **fields: object) -> None:
        seen.append((what, now, fields))

    transport = ObservedTransport(transport_over(ours), observe)
    transport.now = lambda: 7.0
    await theirs.send_all(b"Ada")
    assert await transport.receive() == b"Ada"
    assert await transport.receive_arrived() is None
    assert transport.send_now(b"x") == 0
    assert await transport.send_some(b"Bob") == 3
    assert not transport.is_in_flight()
    assert transport.arrived() > 0
    await transport.send_eof(1)
    await theirs.aclose()
    assert await transport.receive_arrived() == b""
    transport.close()
    assert seen == [
        ("receive", 7.0, {"bytes": 3}),
        ("send", 7.0, {"bytes": 3}),
        ("half_close", 7.0, {}),
        ("receive", 7.0, {"bytes": 0}),
        ("close", 7.0, {}),
    ]


async def test_several_outputs_take_the_same(tmp_path: Path) -> None:
    paths = [tmp_path / "one", tmp_path / "two"]
    outputs = [RecordFile(str(path), print) for path in paths]
    with recorded(outputs) as recording:
        assert recording
        recording.server(now=trio.current_time())
    for output in outputs:
        output.close()
    one, two = (path.read_bytes() for path in paths)
    assert one == two
    assert one.count(b"\n") == 2


async def test_a_loop_that_never_waits_does_not_keep_everything(tmp_path: Path) -> None:
    path = tmp_path / "record"
    output = RecordFile(str(path), print)
    with recorded([output]) as recording:
        assert recording
        server = recording.server(now=trio.current_time())
        for _ in range(1000):  # no task gets to run meanwhile
            server.receive_data(b"x" * 1000 + b"\n", trio.current_time())
        assert path.stat().st_size > 1_000_000
    output.close()
    assert len(items_in(path)) == 1001
