"""An implementation in another language passes the whole corpus: `node/`, in JavaScript."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from .corpus import CORPUS, read_corpus

NODE = shutil.which("node")
REPLAY = Path(__file__).parent / "node" / "replay.mjs"
LIMIT = 60.0  # seconds

pytestmark = pytest.mark.skipif(NODE is None, reason="needs Node.js")


def replay(*files: Path) -> "subprocess.CompletedProcess[str]":
    """Run the replayer, to its end."""
    return subprocess.run(
        [str(NODE), REPLAY, *files],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=LIMIT,
        check=False,
    )


def test_it_conforms() -> None:
    done = replay(*sorted(CORPUS.glob("*.jsonl")))
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{len(read_corpus())} conversations" in done.stdout


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("output", {"text": "Goodbye?\n"}),
        ("eof", None),
        ("events", [{"event": "EOFReceived"}]),
        ("deadline", 1.0000000000000002),
        ("state", "open"),
        ("framing", "raw"),
    ],
)
def test_it_can_fail(tmp_path: Path, field: str, wrong: object) -> None:
    """A line that says something else is found, and told."""
    lines = (CORPUS / "closing.jsonl").read_text("utf-8").splitlines()
    number = next(n for n, line in enumerate(lines) if '"eof": true' in line)
    step = json.loads(lines[number])
    assert step.pop(field) != wrong
    lines[number] = json.dumps(step if wrong is None else step | {field: wrong})
    changed = tmp_path / "changed.jsonl"
    changed.write_text("\n".join(lines) + "\n", "utf-8")
    done = replay(changed)
    assert done.returncode == 1
    assert "changed.jsonl" in done.stdout
    assert str(number + 1) in done.stdout
    assert field in done.stdout


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.jsonl"
    damaged.write_text('{"transcript": 1}\n{"id": 1, \n', "utf-8")
    done = replay(damaged)
    assert done.returncode == 2
    assert "damaged.jsonl" in done.stderr
    assert "2" in done.stderr
