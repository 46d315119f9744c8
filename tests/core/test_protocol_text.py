"""PROTOCOL.md as a text: every clause is tested, every example replayed, every table true."""

import ast
import math
import re
from collections.abc import Iterator
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greeter_core import ClientConfig, ServerConfig, ServerConnection

from .helpers import (
    EOF,
    FULL,
    GOODBYE,
    LINES,
    PROMPT,
    PROTOCOL,
    RAW,
    ROOT,
    TOO_SLOW,
    WELCOME,
    Driven,
    Script,
    Server,
    hello,
    law,
    play,
    server_configs,
    server_scripts,
    too_long,
)

TEXT = PROTOCOL.read_text("utf-8")

# The clauses

CLAUSE = r"[A-Z]\d+(?:\.\d+)?"
DEFINED = re.findall(rf"^- \*\*({CLAUSE})\*\* ", TEXT, re.MULTILINE)


@cache
def cited() -> dict[str, list[str]]:
    """Return the clauses that the tests of this project cite in their docstrings, each with the tests that do."""
    clauses: dict[str, list[str]] = {}
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test"):
                for bracket in re.findall(rf"\[({CLAUSE}(?:, {CLAUSE})*)\]", ast.get_docstring(node) or ""):
                    for clause in bracket.split(", "):
                        clauses.setdefault(clause, []).append(f"{path.name}: {node.name}")
    return clauses


def test_clauses_are_numbered_once() -> None:
    """Every clause has a number of its own, and there are clauses of every kind."""
    assert len(DEFINED) == len(set(DEFINED))
    assert {clause[0] for clause in DEFINED} == set("WSTFCME")


def test_every_clause_is_tested() -> None:
    """Every clause of PROTOCOL.md is cited by a test."""
    assert [clause for clause in DEFINED if clause not in cited()] == []


def test_every_citation_is_right() -> None:
    """What the tests cite is in PROTOCOL.md."""
    assert {clause: tests for clause, tests in cited().items() if clause not in DEFINED} == {}


def test_references_within_the_text() -> None:
    """Where one clause refers to another, or to a group of them, that exists."""
    groups = {clause.partition(".")[0] for clause in DEFINED}
    references = set(re.findall(r"\b[STFCMEW]\d+(?:\.\d+)?\b", re.sub(r"```.*?```", "", TEXT, flags=re.DOTALL)))
    assert references - {*DEFINED, *groups} == set()


def test_every_test_says_what_holds() -> None:
    """Every test of the core has a docstring of one sentence."""
    for path in sorted((ROOT / "tests" / "core").glob("*.py")):
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test"):
                assert re.fullmatch(r"[A-Z`].*\.", ast.get_docstring(node) or ""), f"{path.name}: {node.name}"


# The words


def rows(heading: str) -> Iterator[list[str]]:
    """Yield the cells of the table that has this heading."""
    _, _, rest = TEXT.partition(f"| {heading} |")
    for line in rest.splitlines()[2:]:
        if not line.startswith("|"):
            return
        yield [cell.strip() for cell in line.strip("|").split("|")]


WORDS = {
    word: "".join(re.findall(r"`([^`]*)`", re.sub(r"` (name|reason) `", r"<\1>", cell))).replace(r"\n", "\n").encode()
    for word, cell, _ in rows("word")
}


def test_the_words() -> None:
    """The words of the table are what a server says, and what the tests expect of it [W1, W3]."""
    assert set(WORDS) == {"WELCOME", "PROMPT", "HELLO", "GOODBYE", "SORRY"}
    server = Server(LINES, max_name_size=70)
    assert server.stream == WORDS["WELCOME"] + WORDS["PROMPT"] == WELCOME + PROMPT
    assert server.hears(b"Ada\n") == WORDS["HELLO"].replace(b"<name>", b"Ada") + PROMPT == hello(b"Ada") + PROMPT
    assert server.hears(b"exit\n") == WORDS["GOODBYE"] == GOODBYE
    reasons = [
        reason.replace("N", "70").encode() for reason in re.findall(r"`((?:names|no name|the server is) [^`]*)`", TEXT)
    ]
    refusals = [WORDS["SORRY"].replace(b"<reason>", reason) for reason in reasons]
    server = Server(LINES, max_name_size=70)
    server.waits(100)
    too_much = Server(RAW, max_name_size=70).hears(b"x" * 71).removeprefix(PROMPT)
    assert refusals == [too_much, server.said[1][1], Server(full=True).stream]
    assert refusals == [too_long(70), TOO_SLOW, FULL]


def test_words_are_ascii() -> None:
    """All words are US-ASCII, with LF for the end of a line [W1]."""
    for word in WORDS.values():
        assert word.isascii()
        assert b"\r" not in word
        assert word.count(b"\n") == word.endswith(b"\n")


SORRY = rb"Sorry, [\x20-\x2D\x2F-\x7E]+\.\n"


def sentence(name: bytes) -> re.Pattern[bytes]:
    """Return the grammar of what a server says, with this one of a name."""
    asked = rb"(?:What's your name\?)*"
    return re.compile(rb"Welcome!\n(?:%bHello %b!\n)*%b(?:Goodbye!\n|%b)?|%b" % (asked, name, asked, SORRY, SORRY))


SENTENCE = sentence(rb"[^\n]{1,1024}")
RAW_SENTENCE = sentence(rb"[\x00-\xFF]{1,1024}")


@given(server_configs, server_scripts, st.booleans())
@law(100)
def test_the_grammar(config: ServerConfig, script: Script, full: bool) -> None:  # noqa: FBT001 - drawn
    """What a server says is always a sentence of the grammar [W1, W3, S3.3, S5.3, S8.1, S12.1]."""
    stream = play(ServerConnection(config, now=0, full=full), script).stream
    assert (RAW_SENTENCE if config.framing is RAW else SENTENCE).fullmatch(stream)
    assert (b"Goodbye!\n" in stream) + (b"Sorry, " in stream) <= 1


# The timers


def test_the_table_of_timers() -> None:
    """The seconds in the table of timers are the defaults of the configurations."""
    server, client = ServerConfig(), ClientConfig()
    defaults = {
        ("pace", "server"): server.pace,
        ("quiet", "server"): server.quiet,
        ("idle", "server"): server.idle_timeout,
        ("lifetime", "server"): server.max_lifetime,
        ("reply", "client"): client.reply_timeout,
        ("linger", "both"): server.linger,
    }
    told = {(timer, role): number for timer, role, number, *_ in rows("timer")}
    assert {key: math.inf if number == "never" else float(number) for key, number in told.items()} == defaults
    assert server.linger == client.linger
    assert server.max_name_size == 1024


# The worked examples

EXAMPLES = dict(re.findall(r"^### (.*?)\n\n```text\n(.*?)```", TEXT, re.MULTILINE | re.DOTALL))


CONFIGURED = {"A server configured RAW": ServerConfig(framing=RAW)}


def lines_of(example: str) -> Iterator[tuple[float, str, bytes | None]]:
    """Yield when, who and what for each line of an example."""
    for line in example.splitlines():
        when, who, what = line.split(" ", 2)
        yield float(when), who, EOF if what == "EOF" else what.replace(r"\n", "\n").encode()


def test_there_are_examples() -> None:
    """All worked examples are found, and they show both sides, and the calls that they name."""
    assert len(EXAMPLES) == TEXT.count("```text") == 9
    assert {*CONFIGURED, "A full server"} <= set(EXAMPLES)
    for example in EXAMPLES.values():
        assert {who for _, who, _ in lines_of(example)} >= {"C", "S"}
    calls = {(who, what) for text in EXAMPLES.values() for _, who, what in lines_of(text)}
    assert {call for call in calls if call[0] not in "CS"} == {
        ("T", b"handle_timeout"),
        ("F", b"data_in_flight"),
    }


@pytest.mark.parametrize("title", EXAMPLES)
def test_examples(title: str) -> None:
    """A server says exactly what the example shows, exactly then [S2.7, S12.1, S12.2, T1, T3]."""
    lines = list(lines_of(EXAMPLES[title]))
    config = CONFIGURED.get(title, ServerConfig())
    server = Driven(ServerConnection(config, now=0, full=title == "A full server"))
    every_call_is_shown = any(who in "TF" for _, who, _ in lines)
    for when, who, what in lines:
        if every_call_is_shown:
            server.now = when
        else:
            server.waits(when)
        match who:
            case "C" if what is EOF:
                server.hears_eof()
            case "C":
                server.hears(what or b"")
            case "T":
                server.late(when)
            case "F":
                server.is_unacknowledged()
    said = [(when, what) for when, who, what in lines if who == "S"]
    assert [(round(when, 9), what) for when, what in server.said] == said
    assert server.connection.finished
