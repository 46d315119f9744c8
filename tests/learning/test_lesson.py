"""The experiments of greeter_trio/LEARNING.md do what the lesson says."""

import doctest
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.documents import ROOT, code_blocks
from tests.support.processes import free_port, serving

LEARNING = ROOT / "greeter_trio" / "LEARNING.md"


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    for block in code_blocks("python", LEARNING):
        name = block.splitlines()[0].removeprefix("# ")
        (tmp_path / name).write_text(block, "utf-8")
    return tmp_path


def start(script: Path, *arguments: object) -> "subprocess.Popen[bytes]":
    command = [sys.executable, str(script), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_naive_client_ends_well_with_greeter(scripts: Path) -> None:
    with serving() as server:
        for _ in range(5):
            client = start(scripts / "naive_client.py", server.port)
            out, err = client.communicate(timeout=20)
            assert (client.returncode, err) == (0, b"")
            assert out.decode().splitlines() == [
                repr(b"Welcome!\n"),
                repr(b"What's your name?"),
                repr(b"Hello Ada!\n"),
            ]


def test_naive_pair_ends_well_or_waits_in_vain(scripts: Path) -> None:
    """Which of them happens is a matter of time; nothing else does."""
    port = free_port()
    source = (scripts / "naive_server.py").read_text("utf-8").replace("6001", str(port))
    ready = source.replace("    client, _ =", "    print(flush=True)\n    client, _ =")
    (scripts / "naive_server.py").write_text(ready, "utf-8")
    client_source = (scripts / "naive_client.py").read_text("utf-8")
    hasty = client_source.replace("settimeout(5)", "settimeout(0.5)")
    (scripts / "naive_client.py").write_text(hasty, "utf-8")
    server = start(scripts / "naive_server.py")
    assert server.stdout
    server.stdout.readline()  # it listens
    client = start(scripts / "naive_client.py", port)
    out, err = client.communicate(timeout=20)
    server.communicate(timeout=20)
    if client.returncode == 0:
        assert out.count(b"\n") == 3
    else:
        assert b"TimeoutError" in err
        assert out.decode().splitlines() == [repr(b"Welcome!\nWhat's your name?")]


def test_core_in_the_interpreter() -> None:
    (session,) = code_blocks("pycon", LEARNING)
    snippet = doctest.DocTestParser().get_doctest(session, {}, "LEARNING.md", None, 0)
    assert doctest.DocTestRunner().run(snippet) == (0, len(snippet.examples))
    assert len(snippet.examples) > 7
