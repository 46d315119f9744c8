"""A server's configuration on a command line: the `config` of a transcript's `open`."""

import json

from greeter_core import (
    Recording,
    ServerConfig,
    Step,
    TranscriptError,
    TranscriptItem,
    read_transcript,
    write_header,
    write_item,
)


def config_json(config: ServerConfig) -> str:
    """Return a configuration as it stands in a transcript."""
    items: list[TranscriptItem] = []
    Recording(items.append, now=0.0).server(config, now=0.0)
    return json.dumps(json.loads(write_item(items[0]))["config"])


def config_from_json(text: str) -> ServerConfig:
    """Read such a configuration; missing fields have their defaults. Raises `ValueError`."""
    step = {"id": 1, "at": 0, "input": "open", "role": "server", "config": json.loads(text)}
    line = json.dumps({**step, "state": "open", "framing": "auto"}) + "\n"
    try:
        ((_, item),) = read_transcript([write_header().encode(), line.encode()])
    except TranscriptError as exc:
        raise ValueError(str(exc).partition(": ")[2]) from None
    assert isinstance(item, Step)
    assert item.opening
    assert isinstance(item.opening.config, ServerConfig)
    return item.opening.config
