"""Recordings of real conversations come out as they were recorded."""

from pathlib import Path

import pytest

from greeter_core import Observed, Step, StepInput, read_transcript, replay

GOLDEN = Path(__file__).parents[1] / "golden"
NAMES = sorted(path.stem for path in GOLDEN.glob("*.jsonl"))


def test_all_kinds_of_peers_are_there() -> None:
    assert set(NAMES) >= {
        *("original", "nc", "nc-half-close", "telnet", "pipelining", "slow", "reset", "refused"),
        *("shutdown", "idle", "client", "demo"),
    }


@pytest.mark.parametrize("name", NAMES)
def test_golden_conversation_is_replayed(name: str) -> None:
    with (GOLDEN / f"{name}.jsonl").open("rb") as file:
        assert replay(read_transcript(file)) is None


def test_golden_conversations_have_every_input_and_real_segments() -> None:
    steps, observed = set(), set()
    for name in NAMES:
        with (GOLDEN / f"{name}.jsonl").open("rb") as file:
            for _, item in read_transcript(file):
                if isinstance(item, Step):
                    steps.add(item.input)
                elif isinstance(item, Observed):
                    observed.add(item.what)
    assert steps == set(StepInput)
    assert observed >= {"accept", "connect", "send", "receive", "half_close", "close", "tcp"}
    assert "segment" in observed
