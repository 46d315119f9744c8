"""PROTOCOL.md as a text: every clause is tested, every example replayed, every table true."""

import ast
import functools
import math
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given

import greeter_core as core
from tests.support.laws import Case, law, play, server_cases
from tests.support.virtual import LINES, RAW, Server
from tests.support.words import FULL, GOODBYE, PROMPT, TOO_SLOW, WELCOME, hello, too_long

from .state_docs import PROTOCOL

TESTS = Path(__file__).parents[1]
TEXT = PROTOCOL.read_text("utf-8")

# The clauses

CLAUSE = r"[A-Z]\d+(?:\.\d+)?"
DEFINED = re.findall(rf"^- \*\*({CLAUSE})\*\* ", TEXT, re.MULTILINE)


@functools.cache
def cited() -> dict[str, list[str]]:
    """Return the clauses that the tests cite, in docstrings and titles, each with the places."""
    clauses: dict[str, list[str]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                for bracket in re.findall(rf"\[({CLAUSE}(?:, {CLAUSE})*)\]", node.value):
                    for clause in bracket.split(", "):
                        clauses.setdefault(clause, []).append(f"{path.name}:{node.lineno}")
    return clauses


def test_every_clause_is_numbered_once_and_tested_and_every_citation_is_of_a_clause() -> None:
    assert len(DEFINED) == len(set(DEFINED))
    assert {clause[0] for clause in DEFINED} == set("WSTFCME")
    assert [clause for clause in DEFINED if clause not in cited()] == []
    assert {clause: tests for clause, tests in cited().items() if clause not in DEFINED} == {}


def test_every_reference_to_a_clause_is_right() -> None:
    groups = {clause.partition(".")[0] for clause in DEFINED}
    prose = re.sub(r"```.*?```", "", TEXT, flags=re.DOTALL)
    references = set(re.findall(r"\b[STFCMEW]\d+(?:\.\d+)?\b", prose))
    assert references - {*DEFINED, *groups} == set()


# The words


def rows(heading: str) -> Iterator[list[str]]:
    """Yield the cells of the table that has this heading."""
    _, _, rest = TEXT.partition(f"| {heading} |")
    for line in rest.splitlines()[2:]:
        if not line.startswith("|"):
            return
        yield [cell.strip() for cell in line.strip("|").split("|")]


def word_of(cell: str) -> bytes:
    """Return the bytes that a cell of the table shows, with `<name>` or `<reason>` inside."""
    quoted = re.findall(r"`([^`]*)`", re.sub(r"` (name|reason) `", r"<\1>", cell))
    return "".join(quoted).replace(r"\n", "\n").encode()


WORDS = {word: word_of(cell) for word, cell, _ in rows("word")}


def test_words_of_the_table() -> None:
    """They are what a server says, and what the tests expect of it [W1, W3]."""
    assert set(WORDS) == {"WELCOME", "PROMPT", "HELLO", "GOODBYE", "SORRY"}
    server = Server(LINES, max_name_size=70)
    assert server.stream == WORDS["WELCOME"] + WORDS["PROMPT"] == WELCOME + PROMPT
    greeting = WORDS["HELLO"].replace(b"<name>", b"Ada")
    assert server.hears(b"Ada\n") == greeting + PROMPT == hello(b"Ada") + PROMPT
    assert server.hears(b"exit\n") == WORDS["GOODBYE"] == GOODBYE
    quoted = re.findall(r"`((?:names|no name|the server is) [^`]*)`", TEXT)
    reasons = [reason.replace("N", "70").encode() for reason in quoted]
    refusals = [WORDS["SORRY"].replace(b"<reason>", reason) for reason in reasons]
    server = Server(LINES, max_name_size=70)
    server.waits(100)
    too_much = Server(RAW, max_name_size=70).hears(b"x" * 71).removeprefix(PROMPT)
    assert refusals == [too_much, server.said[1][1], Server(full=True).stream]
    assert refusals == [too_long(70), TOO_SLOW, FULL]

    for word in WORDS.values():
        assert word.isascii()
        assert b"\r" not in word
        assert word.count(b"\n") == word.endswith(b"\n")


SORRY = rb"Sorry, [\x20-\x2D\x2F-\x7E]+\.\n"


def sentence(name: bytes) -> re.Pattern[bytes]:
    """Return the grammar of what a server says, with this one of a name."""
    asked = rb"(?:What's your name\?)*"
    conversation = rb"Welcome!\n(?:%bHello %b!\n)*%b(?:Goodbye!\n|%b)?"
    return re.compile((conversation + rb"|%b") % (asked, name, asked, SORRY, SORRY))


@given(server_cases)
@law(100)
def test_the_grammar(case: Case) -> None:
    """What a server says is a sentence of the grammar [W1, W3, S3.3, S5.3, S8.1, S12.1]."""
    stream = play(case.open(), case.script).stream
    name = rb"[\x00-\xFF]" if case.config.framing is RAW else rb"[^\n]"
    assert sentence(name + rb"{1,1024}").fullmatch(stream)
    assert (b"Goodbye!\n" in stream) + (b"Sorry, " in stream) <= 1


# The timers


def test_the_table_of_timers() -> None:
    server, client = core.ServerConfig(), core.ClientConfig()
    told = {(timer, role): number for timer, role, number, *_ in rows("timer")}
    assert {key: math.inf if text == "never" else float(text) for key, text in told.items()} == {
        ("pace", "server"): server.pace,
        ("quiet", "server"): server.quiet,
        ("idle", "server"): server.idle_timeout,
        ("lifetime", "server"): server.max_lifetime,
        ("reply", "client"): client.reply_timeout,
        ("linger", "both"): server.linger,
    }
    assert (server.linger, server.max_name_size) == (client.linger, 1024)


# The worked examples. (That they are drawn from these transcripts is tested with the documents.)

EXAMPLES = sorted((TESTS / "golden" / "examples").glob("*.jsonl"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_is_true(path: Path) -> None:
    """A server says exactly what is shown, exactly then [S2.7, S12.1, S12.2, T1, T3]."""
    with path.open("rb") as file:
        lines = list(core.read_transcript(file))
    assert core.replay(lines) is None
    steps = [item for _, item in lines if isinstance(item, core.Step)]
    assert len(steps) == len(lines)
    assert steps[-1].state.is_ended


def test_there_is_a_transcript_for_each_example() -> None:
    titles = re.findall(r"^### ([^\n]*)\n\n```text", TEXT, re.MULTILINE)
    names = [re.sub("[^a-z]+", "-", title.lower()).strip("-") for title in titles]
    assert len(names) == 9
    assert sorted(names) == [path.stem for path in EXAMPLES]
