"""The state machines: every state with everything that can happen, in the tables, in the text and in fact."""

import enum
import itertools
import math
from collections.abc import Callable

import pytest

from greeter_core import ClientState, ServerState
from greeter_core._states import Input

from .helpers import GOODBYE, LINES, PROMPT, PROTOCOL, TOO_SLOW, WELCOME, Client, Server, hello
from .state_docs import TABLES, inputs_of, write

ROLES: dict[str, type[enum.Enum]] = {"server": ServerState, "client": ClientState}
roles = pytest.mark.parametrize("role", ROLES)


def table(role: str) -> dict[str, dict[str, str]]:
    """Return the program's table by names: what each thing that happens leads to, by state."""
    return {
        state.name: {what.value: target.name for what, target in row.items()} for state, row in TABLES[role].items()
    }


# The tables


def test_the_text_shows_the_tables() -> None:
    """The tables and diagrams in PROTOCOL.md are those of the program."""
    text = PROTOCOL.read_text("utf-8")
    assert write(text) == text


@roles
def test_tables_are_complete(role: str) -> None:
    """Every state of a role has a row in its table, and each entry leads to another of them."""
    rows = table(role)
    assert list(rows) == [state.name for state in ROLES[role]]
    for state, row in rows.items():
        assert set(row.values()) <= {*rows} - {state}


def test_every_input_has_an_entry() -> None:
    """Whatever can happen is in the table of one role or of both."""
    assert {what for transitions in TABLES.values() for what in inputs_of(transitions)} == {*Input}


@roles
def test_ended_is_final(role: str) -> None:
    """Nothing leads out of ENDED, and nothing out of CLOSING but to there [E4, S8.2]."""
    rows = table(role)
    assert rows["ENDED"] == {}
    assert set(rows["CLOSING"].values()) == {"ENDED"}


@roles
def test_every_state_can_be_reached(role: str) -> None:
    """From the first state a way leads to every other, and from each of them one leads to ENDED."""
    rows = table(role)

    def reachable(state: str) -> set[str]:
        found = {state}
        while more := {new for old in found for new in rows[old].values()} - found:
            found |= more
        return found

    assert reachable(next(iter(rows))) == set(rows)
    assert all("ENDED" in reachable(state) for state in rows)


# In fact. How each state is entered, and how each thing is made to happen; a timer is due at 5, where it runs.


def server_in(state: str, what: str) -> Server:
    """Return a server in this state, at 1 o'clock, to which that can happen; where it is full, it was so on open."""
    server = Server(
        LINES,
        max_name_size=5,
        idle_timeout=5 if what == "idle is due" else math.inf,
        max_lifetime=5 if what == "lifetime is due" else math.inf,
        linger=4 if what == "linger is due" else 1000,
        full=what == "the server is full",
    )
    server.waits(1)
    match state:
        case "CLOSING":
            server.hears(b"exit\n")
        case "ENDED":
            server.loses_connection()
    assert what == "the server is full" or server.connection.state.name == state
    return server


SERVER_INPUTS: dict[str, Callable[[Server], object]] = {
    "the server is full": lambda server: server.waits(50),
    "`exit`": lambda server: server.hears(b"exit\n"),
    "a name too long": lambda server: server.hears(b"123456"),
    "idle is due": lambda server: server.waits(50),
    "lifetime is due": lambda server: server.waits(50),
    "told to shut down": lambda server: server.shuts_down(),
    "the peer's EOF": lambda server: server.hears_eof(),
    "linger is due": lambda server: server.waits(50),
    "connection lost": lambda server: server.loses_connection(),
}


@pytest.mark.parametrize("what", SERVER_INPUTS)
@pytest.mark.parametrize("state", table("server"))
def test_server(state: str, what: str) -> None:
    """A server goes where the table says, or stays without an entry [S8.1, S8.2, S8.3, S12.1]."""
    server = server_in(state, what)
    SERVER_INPUTS[what](server)
    assert server.connection.state.name == table("server")[state].get(what, state)


ANSWER = "GOODBYE, the answer to `exit`"


def client_in(state: str, what: str) -> Client:
    """Return a client in this state, at 1 o'clock, to which that can happen.

    `Bob` is unanswered, so that GOODBYE does not answer `exit`, unless it is to do so.
    """
    client = Client(
        LINES,
        reply_timeout=5 if what == "reply is due" else math.inf,
        linger=4 if what == "linger is due" else 1000,
    )
    client.asks(b"Ada")
    if what == ANSWER:
        client.asks_exit()
    else:
        client.asks(b"Bob")
    client.waits(1)
    heard = {
        "CONNECTED": b"",
        "WELCOMED": WELCOME,
        "PROMPTED": WELCOME + PROMPT + hello(b"Ada") + PROMPT,
        "GREETED": WELCOME + PROMPT + hello(b"Ada"),
        "CLOSING": GOODBYE,
        "ENDED": b"nonsense",
    }[state]
    if heard:
        client.hears(heard)
    assert client.connection.state.name == state
    return client


CLIENT_INPUTS: dict[str, Callable[[Client], object]] = {
    "WELCOME": lambda client: client.hears(WELCOME),
    "PROMPT": lambda client: client.hears(PROMPT),
    "HELLO": lambda client: client.hears(hello(b"Bob")),
    ANSWER: lambda client: client.hears(GOODBYE),
    "GOODBYE, before that": lambda client: client.hears(GOODBYE),
    "SORRY": lambda client: client.hears(TOO_SLOW),
    "any other words": lambda client: client.hears(b"nonsense"),
    "reply is due": lambda client: client.waits(50),
    "told to shut down": lambda client: client.shuts_down(),
    "the peer's EOF": lambda client: client.hears_eof(),
    "linger is due": lambda client: client.waits(50),
    "connection lost": lambda client: client.loses_connection(),
}


def client_goes_to(state: str, what: str) -> str:
    """Return the state to which this leads: where a word has no entry, it is any other word."""
    row = table("client")[state]
    other_word = row.get("any other words") if what in ("WELCOME", "PROMPT", "HELLO") else None
    return row.get(what) or other_word or state


@pytest.mark.parametrize(
    ("state", "what"),
    [
        (state, what)
        for state, what in itertools.product(table("client"), CLIENT_INPUTS)
        if (state, what) not in {("CONNECTED", ANSWER), ("WELCOMED", ANSWER)}  # nothing is sent yet
    ],
)
def test_client(state: str, what: str) -> None:
    """A client goes where the table says, or stays without an entry [C1.1, C1.2, C1.3, C6.1]."""
    client = client_in(state, what)
    CLIENT_INPUTS[what](client)
    assert client.connection.state.name == client_goes_to(state, what)


@pytest.mark.parametrize(("role", "inputs"), [("server", SERVER_INPUTS), ("client", CLIENT_INPUTS)])
def test_everything_is_made_to_happen(role: str, inputs: dict[str, object]) -> None:
    """The two tests above leave out nothing that the tables know."""
    assert [what.value for what in inputs_of(TABLES[role])] == list(inputs)
