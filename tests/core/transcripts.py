"""Recordings in virtual time."""

from collections.abc import Iterable
from typing import Any

from greeter_core import (
    Recorder,
    Recording,
    ServerConfig,
    TranscriptItem,
    read_transcript,
    write_header,
    write_item,
)
from tests.support.laws import Case


def recorded(case: Case, items: list[TranscriptItem], now: float = 0.0) -> Recorder[Any]:
    """Open the connection of a case, recorded into this list."""
    recording = Recording(items.append, now=now)
    if isinstance(case.config, ServerConfig):
        return recording.server(case.config, now=now, full=case.full)
    return recording.client(case.config, now=now)


def text_of(items: Iterable[TranscriptItem]) -> bytes:
    """Return the transcript of these items, as a file has it."""
    return (write_header() + "".join(map(write_item, items))).encode()


def items_of(text: bytes) -> list[TranscriptItem]:
    """Return the items of a transcript."""
    return [item for _, item in read_transcript(text.splitlines(keepends=True))]
