"""Recordings for the tests of what is drawn from them."""

from pathlib import Path

from greeter_core import TranscriptItem, read_transcript

GOLDEN = Path(__file__).parents[1] / "golden"


def golden(name: str) -> list[TranscriptItem]:
    """Return the items of a real conversation."""
    with (GOLDEN / f"{name}.jsonl").open("rb") as file:
        return [item for _, item in read_transcript(file)]
